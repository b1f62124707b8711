import type { BatchReport, EdenElement, EdenFault, EdenRecord, Version } from '../../sync/index.ts'

/** Failed records that the answer shows. */
const SHOWN_MAX = 100

/** A record that was not taken, and why. */
export type NotTaken = {
  readonly resource: string
  readonly table: string
  readonly id: string
  readonly reason: string
  readonly element?: EdenElement
}

/** What became of a push. */
export type Received = {
  /** Records of the table that was pushed. */
  readonly records: number
  /** Files that they name, and that are not fetched here. */
  readonly files: number
  readonly counts: BatchReport['counts']
  readonly notTaken: readonly NotTaken[]
  readonly notTakenCount: number
}

/** Counts what became of the records. */
export class Tally {
  /** Files that records name. */
  files = 0
  /** Of those the ones that were fetched, and those that could not be. */
  fetched = 0
  lost = 0
  fileMs = 0
  /** Resources of which records were merged into others. */
  readonly merged = new Set<string>()
  /** By resource, the versions that wait in quarantine. */
  readonly waiting = new Map<string, Map<string, Version>>()
  readonly #table: string
  readonly #resourceOfTable: string | undefined
  readonly #counts = { applied: 0, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 }
  #records = 0
  #unnamed = 0
  #notTaken: NotTaken[] = []

  constructor(table: string, resourceOfTable: string | undefined) {
    this.#table = table
    this.#resourceOfTable = resourceOfTable
  }

  get applied(): number {
    return this.#counts.applied + this.#counts.merged
  }

  taken(records: readonly EdenRecord[]): void {
    this.#records += records.filter(({ shape }) => shape.table === this.#table).length
    for (const { replacedBy, shape } of records) if (replacedBy !== undefined) this.merged.add(shape.resource)
  }

  fault({ table, uuid = '', reason, element }: EdenFault): void {
    this.#counts.refused++
    this.#notTaken.push({ resource: '', table, id: uuid, reason, element })
  }

  refuse({ shape, change }: EdenRecord, reason: string): void {
    this.#counts.refused++
    this.#notTaken.push({ resource: shape.resource, table: shape.table, id: change.id, reason })
  }

  /** It came before, and waits. */
  waits(record: EdenRecord | undefined, reason: string, version: Version | undefined): void {
    if (record === undefined || version === undefined) return
    const { resource, table } = record.shape
    if (table === this.#table) this.#records--
    this.#counts.quarantined++
    this.#notTaken.push({ resource, table, id: record.change.id, reason })
    this.#wait(resource, record.change.id, version)
  }

  #wait(resource: string, id: string, version: Version): void {
    const waiting = this.waiting.get(resource) ?? new Map<string, Version>()
    this.waiting.set(resource, waiting.set(id, version))
  }

  report(
    { counts, rejections }: BatchReport,
    records: ReadonlyMap<string, EdenRecord>,
    resource: string,
    versions: ReadonlyMap<string, Version>,
  ): void {
    for (const outcome of Object.keys(counts) as (keyof typeof counts)[]) this.#counts[outcome] += counts[outcome]
    const lost = rejections.filter(({ outcome }) => outcome === 'refused' || outcome === 'quarantined')
    this.#unnamed += counts.refused + counts.quarantined - lost.length
    for (const { id, outcome, reason } of lost) {
      const table = records.get(id)?.shape.table ?? resource
      if (table === this.#table) this.#records--
      this.#notTaken.push({ resource, table, id, reason })
      const version = versions.get(id)
      if (outcome === 'quarantined' && version !== undefined) this.#wait(resource, id, version)
    }
  }

  /** Records of a resource that were set aside and have come in since. */
  arrived(resource: string, ids: ReadonlySet<string>): void {
    const rest = this.#notTaken.filter((each) => each.resource !== resource || !ids.has(each.id))
    const found = this.#notTaken.length - rest.length
    this.#notTaken = rest
    this.#counts.quarantined -= found
    this.#counts.applied += found
    if (resource === this.#resourceOfTable) this.#records += found
  }

  result(): Received {
    return {
      records: Math.max(0, this.#records),
      files: this.files - this.fetched,
      counts: this.#counts,
      notTaken: this.#notTaken.slice(0, SHOWN_MAX),
      notTakenCount: this.#notTaken.length + this.#unnamed,
    }
  }
}
