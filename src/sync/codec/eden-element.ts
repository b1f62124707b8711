/** Attributes as they stood, in their order. */
export type EdenAttributes = Readonly<Record<string, string>>

/**
 * A `<data>` or `<reference>` of S3XML, or the same in S3JSON. `attributes` are all but `field`: of data value, url, filename, null; of a
 * reference resource, uuid, tuid, id, value, lat, lon, null. `value` is the text of the attribute: JSON, or a bare date.
 */
export type EdenField = {
  readonly kind: 'data' | 'reference'
  readonly field: string
  readonly attributes: EdenAttributes
  readonly text: string
  /** A record that stands inside a reference to it and often has no name of its own. */
  readonly inline?: EdenElement
}

/** One `<resource>` of a document of Eden: whole, with everything that this site does not know. */
export type EdenElement = {
  readonly table: string
  /** All but the name: uuid, mci, created_on, modified_on, deleted, replaced_by, created_by, … and those that Eden never heard of. */
  readonly attributes: EdenAttributes
  readonly fields: readonly EdenField[]
  readonly components: readonly EdenElement[]
}

/** Bounds on a document of Eden. A record is a top-level element with all that stands in it. */
export type EdenLimits = {
  readonly elementsMax: number
  readonly recordBytesMax: number
  readonly depthMax: number
  readonly bytesMax: number
}

/** Reads a document as its bytes come; what is complete is given out and forgotten, so memory is bounded by one record. */
export type EdenReader = {
  /** The top-level elements that these bytes completed, in the order of the document. Throws SYNC_FORMAT_INVALID and the like. */
  readonly write: (bytes: Uint8Array) => readonly EdenElement[]
  /** The end of the document. Throws SYNC_FORMAT_INVALID where it is none. */
  readonly end: () => readonly EdenElement[]
  /** Attributes of the root, as far as they were read. In S3JSON they may stand at the end. */
  readonly root: () => EdenAttributes
}

/** Writes a document piece by piece. */
export type EdenWriter = {
  readonly mediaType: string
  readonly open: (root: EdenAttributes) => string
  readonly element: (element: EdenElement) => string
  readonly close: () => string
}
