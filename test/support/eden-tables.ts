/**
 * The tables of a scripted Sahana Eden: what its exporter sends of them and what its importer makes of a document, with the faults of the real
 * one: a clock of whole seconds, a cursor over the master's time alone, the newer time wins, refused records that count as updated, a refused
 * update that sets the time back, texts unescaped twice, deletions stamped on arrival.
 */
import { all, type Element, xmlText } from './eden-document.ts'
import type { EdenField, EdenTable } from './eden-schema.ts'

export type EdenRow = {
  readonly id: number
  readonly uuid: string
  mci: number
  created_on: string
  modified_on: string
  deleted: boolean
  replacedBy?: string
  approved: boolean
  /** References as uuid of their target. */
  values: Record<string, unknown>
}

export type Policy = 'THIS' | 'OTHER' | 'NEWER' | 'MASTER'

export type Imported = { answer: Record<string, unknown>; errors: number }

const TARGET = /^reference (\w+)$/

export function createTables(tables: Readonly<Record<string, EdenTable>>, domain: string, now: () => string) {
  const rows = new Map(Object.keys(tables).map((name) => [name, new Map<string, EdenRow>()]))
  let serial = 0
  const policies: { update: Policy } = { update: 'NEWER' }

  const rowsOf = (table: string) => rows.get(table) ?? new Map<string, EdenRow>()
  const targetOf = (field: EdenField | undefined) => TARGET.exec(field?.type ?? '')?.[1]

  /** A write of a user of this Eden. */
  function put(table: string, uuid: string, values: Record<string, unknown>, at = now()): EdenRow {
    const before = rowsOf(table).get(uuid)
    const row = before ?? blank(uuid, at)
    Object.assign(row.values, values)
    for (const [name, value] of Object.entries(row.values)) if (value === null) delete row.values[name]
    row.modified_on = at
    row.deleted = false
    rowsOf(table).set(uuid, row)
    return row
  }

  function blank(uuid: string, at: string): EdenRow {
    return { id: ++serial, uuid, mci: 0, created_on: at, modified_on: at, deleted: false, approved: true, values: {} }
  }

  /** A deletion by a user, or by a merge. Gives why it cannot be. */
  function remove(table: string, uuid: string, replacedBy?: string): string | null {
    const row = rowsOf(table).get(uuid)
    if (row === undefined || row.deleted) return null
    for (const [other, { fields }] of Object.entries(tables)) {
      for (const [name, field] of Object.entries(fields)) {
        if (targetOf(field) !== table) continue
        for (const referring of [...rowsOf(other).values()].filter(
          (each) => !each.deleted && each.values[name] === uuid,
        )) {
          if (referring === row) continue
          if (replacedBy !== undefined) Object.assign(referring, { modified_on: now() }).values[name] = replacedBy
          else if (field.onDelete === 'CASCADE') remove(other, referring.uuid)
          else if (field.onDelete === 'SET NULL') delete referring.values[name]
          else return 'Integrity error: record can not be deleted while it is referenced by other records'
        }
      }
    }
    Object.assign(row, {
      deleted: true,
      modified_on: now(),
      values: {},
      ...(replacedBy !== undefined && { replacedBy }),
    })
    return null
  }

  return {
    rows: rowsOf,
    policies,
    put,
    remove,
    exported,
    imported,
    fieldsXml,
    has: (table: string) => Object.hasOwn(tables, table),
  }

  function nameOut(uuid: string): string {
    return uuid.startsWith('urn:') || uuid.includes('/') ? uuid : `${domain}/${uuid}`
  }

  function nameIn(uuid: string): string {
    return uuid.startsWith(`${domain}/`) ? uuid.slice(domain.length + 1) : uuid
  }

  /** The elements of a pull: masters, their components inside them, what they refer to behind them. */
  function exported(table: string, chosen: readonly EdenRow[], url: string, includeDeleted: boolean): string {
    const masters = chosen.filter(({ deleted }) => includeDeleted || !deleted)
    const done = new Set(masters.map(({ uuid }) => `${table} ${uuid}`))
    const more: string[] = []
    const follow = (row: EdenRow, of: string, depth: number): void => {
      for (const [name, field] of Object.entries(tables[of]?.fields ?? {})) {
        const target = targetOf(field)
        const uuid = row.values[name]
        const found = target === undefined ? undefined : rowsOf(target).get(String(uuid))
        if (target === undefined || found === undefined || found.deleted || depth > 10 || done.has(`${target} ${uuid}`))
          continue
        done.add(`${target} ${uuid}`)
        more.push(element(found, target, url, false))
        follow(found, target, depth + 1)
      }
      if (depth > 0) return
      for (const [component, key] of Object.entries(tables[of]?.components ?? {}))
        for (const each of componentsOf(row, component, key)) follow(each, component, 1)
    }
    const first = masters.map((row) => {
      follow(row, table, 0)
      return element(row, table, url, true)
    })
    const count = masters.length
    const root = `<s3xml success="${count > 0}" results="${count}" domain="${domain}" url="${url}"`
    const head = `<?xml version='1.0' encoding='utf-8'?>\n`
    return count === 0 ? `${head}${root}/>` : `${head}${root}>${first.join('')}${more.join('')}</s3xml>`
  }

  function componentsOf(row: EdenRow, component: string, key: string): EdenRow[] {
    return [...rowsOf(component).values()].filter((each) => !each.deleted && each.values[key] === row.uuid)
  }

  function element(row: EdenRow, table: string, url: string, whole: boolean, without?: string): string {
    const uuid = xmlText(nameOut(row.uuid))
    if (row.deleted) {
      const winner = row.replacedBy === undefined ? '' : ` replaced_by="${xmlText(nameOut(row.replacedBy))}"`
      return `<resource name="${table}" uuid="${uuid}" deleted="True" modified_on="${row.modified_on}"${winner}/>`
    }
    const by = 'created_by="admin@example.com" modified_by="admin@example.com" owned_by_user="admin@example.com"'
    const approved = row.approved ? '' : ' approved="false"'
    const open = `<resource name="${table}" uuid="${uuid}" mci="${row.mci + 1}" created_on="${row.created_on}" modified_on="${row.modified_on}" url="${url}/${table.replace('_', '/')}/${row.id}" ${by}${approved}>`
    const fields = Object.entries(tables[table]?.fields ?? {}).flatMap(([name, field]) =>
      name === without || row.values[name] == null ? [] : [fieldOut(name, field, row.values[name], url)],
    )
    const inside = Object.entries((whole && tables[table]?.components) || {}).flatMap(([component, key]) =>
      componentsOf(row, component, key).map((each) => element(each, component, url, false, key)),
    )
    return `${open}${fields.join('')}${inside.join('')}</resource>`
  }

  function fieldOut(name: string, field: EdenField, value: unknown, url: string): string {
    const target = targetOf(field)
    if (target !== undefined) {
      const found = rowsOf(target).get(String(value))
      if (found === undefined || found.deleted) return ''
      const place = target === 'gis_location' ? ` lat="18.5392" lon="-72.3350"` : ''
      return `<reference field="${name}" resource="${target}" uuid="${xmlText(nameOut(found.uuid))}"${place}>${xmlText(String(found.values.name ?? found.id))}</reference>`
    }
    if (field.type === 'upload')
      return `<data field="${name}" url="${String(value).includes('://') ? '' : `${url}/default/download/`}${xmlText(String(value))}" filename="${xmlText(String(value))}"/>`
    if (field.bare === true) return `<data field="${name}">${xmlText(String(value))}</data>`
    const dated = ['date', 'datetime', 'time'].includes(field.type)
    const shown = typeof value === 'boolean' ? (value ? 'Yes' : '-') : String(value)
    return `<data field="${name}" value="${xmlText(dated ? String(value) : JSON.stringify(value))}">${xmlText(shown)}</data>`
  }

  /** What the importer makes of the elements of a table in a document. `whole` undoes everything at the first exception. */
  function imported(table: string, root: Element): Imported {
    const lists = { created: [] as number[], updated: [] as number[], deleted: [] as number[] }
    const failed: object[] = []
    const started = new Map<Element, string | null>()
    let [records, message] = [0, '']
    const inDocument = (name: string, uuid: string) =>
      all(root).find(
        (each) => each.name === 'resource' && each.attributes.name === name && each.attributes.uuid === uuid,
      )

    const take = (
      item: Element,
      name: string,
      master?: { readonly key: string; readonly uuid: string },
    ): string | null => {
      const before = started.get(item)
      if (before !== undefined) return before
      started.set(item, null)
      const error = takeNow(item, name, master)
      started.set(item, error)
      return error
    }

    const takeNow = (
      item: Element,
      name: string,
      master?: { readonly key: string; readonly uuid: string },
    ): string | null => {
      const { attributes } = item
      const at = attributes.modified_on ?? now()
      if (!/^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d/.test(at))
        return `modified_on: Invalid date/time string: ${at} (<class 'str'>)`
      const time = at.slice(0, 19).replace(' ', 'T')
      const uuid = attributes.uuid === undefined ? undefined : nameIn(attributes.uuid)
      const original = uuid === undefined ? sameName(item, name) : rowsOf(name).get(uuid)
      const isNewer = original === undefined || original.modified_on <= time
      const accepted =
        policies.update === 'OTHER' ||
        (policies.update === 'NEWER' && isNewer) ||
        (policies.update === 'MASTER' && original?.mci !== 0 && attributes.mci === '1')
      const counts = name === table && master === undefined
      if (attributes.deleted?.toLowerCase() === 'true') {
        if (original === undefined || original.deleted || !accepted) return null
        const winner = attributes.replaced_by === undefined ? undefined : nameIn(attributes.replaced_by)
        const error = remove(name, original.uuid, winner)
        if (error === null && counts) lists.deleted.push(original.id)
        return error
      }
      const values: Record<string, unknown> = master === undefined ? {} : { [master.key]: master.uuid }
      for (const child of item.children) {
        const field = tables[name]?.fields[child.attributes.field ?? '']
        if (field === undefined) continue
        const error = readField(child, child.attributes.field ?? '', field, values)
        if (error !== null) return error
      }
      for (const [each, field] of Object.entries(tables[name]?.fields ?? {})) {
        const value = values[each] ?? original?.values[each]
        if (field.required === true && (value === undefined || value === '')) return `${each}: value(s) required`
      }
      const links = item.children.filter((each) => each.name !== 'data').length
      const row = original ?? {
        ...blank(uuid ?? `urn:uuid:${crypto.randomUUID()}`, time),
        mci: Number(attributes.mci ?? 2),
      }
      if (original === undefined || (accepted && (policies.update !== 'THIS' || original === undefined))) {
        const changed =
          original === undefined ||
          original.deleted ||
          Object.entries(values).some(([each, value]) => JSON.stringify(row.values[each]) !== JSON.stringify(value))
        if (changed || links > 0) {
          Object.assign(row.values, values)
          row.modified_on = time
          row.deleted = false
          if (attributes.approved !== undefined) row.approved = attributes.approved.toLowerCase() !== 'false'
        }
        rowsOf(name).set(row.uuid, row)
      } else if (links > 0 && !row.deleted) {
        // The refused update still brings its older time.
        row.modified_on = time
      }
      for (const child of item.children.filter((each) => each.name === 'resource')) {
        const component = child.attributes.name ?? ''
        const key = tables[name]?.components?.[component]
        if (key === undefined) continue
        const error = take(child, component, { key, uuid: row.uuid })
        if (error !== null) return error
      }
      if (counts) lists[original === undefined ? 'created' : 'updated'].push(row.id)
      return null
    }

    const readField = (
      child: Element,
      name: string,
      field: EdenField,
      values: Record<string, unknown>,
    ): string | null => {
      const target = targetOf(field)
      if (child.name === 'reference') {
        const uuid = nameIn(child.attributes.uuid ?? '')
        if (target === undefined) return null
        const inside = inDocument(target, child.attributes.uuid ?? '')
        if (inside !== undefined) take(inside, target)
        const found = rowsOf(target).get(uuid)
        // A reference to nothing is dropped without a word.
        if (found !== undefined && !found.deleted) values[name] = uuid
        return null
      }
      if (child.name !== 'data' || target !== undefined) return null
      const value = valueIn(child, field)
      if (value === undefined) return null
      const error = typeFault(field, value) ?? field.valid?.(value) ?? null
      if (error !== null) return `${name}: ${error}`
      values[name] = value
      return null
    }

    const sameName = (item: Element, name: string) => {
      const wanted = item.children.find((each) => each.attributes.field === 'name')
      const text = wanted?.attributes.value ?? wanted?.text
      return [...rowsOf(name).values()].find((row) => !row.deleted && row.values.name === text)
    }

    for (const item of root.children.filter((each) => each.name === 'resource' && each.attributes.name === table)) {
      const error = take(item, table)
      if (error === null) records++
      else {
        message = error.startsWith('Integrity') ? error : 'Validation error'
        const { name: _, ...attributes } = item.attributes
        failed.push({
          ...Object.fromEntries(Object.entries(attributes).map(([each, value]) => [`@${each}`, value])),
          '@error': error,
        })
      }
    }
    const some = Object.fromEntries(Object.entries(lists).filter(([, ids]) => ids.length > 0))
    const trouble =
      failed.length === 0 ? {} : { message: `${message} - invalid items ignored`, tree: { [`$_${table}`]: failed } }
    return { answer: { status: 'success', statuscode: '200', records, ...some, ...trouble }, errors: failed.length }
  }

  function fieldsXml(table: string): string {
    const fields = Object.entries(tables[table]?.fields ?? {}).map(
      ([name, { type }]) =>
        `<field name="${name}" type="${type}" readable="True" writable="True" has_options="${type.startsWith('reference') ? 'True' : 'False'}"/>`,
    )
    return `<?xml version='1.0' encoding='utf-8'?>\n<fields resource="${table}">${fields.join('')}</fields>`
  }
}

/** Undefined where Eden leaves the field alone. */
function valueIn({ attributes, text }: Element, { type }: EdenField): unknown {
  const { value } = attributes
  const plain = type === 'string' || type === 'text'
  if (type === 'upload') return undefined
  if (value === undefined) {
    if (plain) return unescapeTwice(text)
    return text === '' ? undefined : decoded(text)
  }
  if (['date', 'datetime', 'time'].includes(type)) return value === '' ? undefined : moment(value, type)
  if (value === '') return plain ? '' : undefined
  const found = decoded(value)
  // Eden writes what is no text into a text field all the same.
  return plain && typeof found !== 'string' ? String(found === true ? 'True' : found === null ? 'None' : found) : found
}

function moment(value: string, type: string): string {
  if (type === 'date') return value.slice(0, 10)
  const time = new Date(/Z|[+-]\d\d:?\d\d$/.test(value) ? value : `${value}Z`)
  return Number.isNaN(time.getTime()) ? value : time.toISOString().slice(0, 19)
}

function typeFault({ type }: EdenField, value: unknown): string | null {
  if (type === 'integer' && !Number.isInteger(value)) return 'Enter an integer'
  if (type === 'double' && typeof value !== 'number') return 'Enter a number'
  if (type === 'boolean' && typeof value !== 'boolean') return 'Enter a boolean'
  return null
}

function decoded(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function unescapeTwice(text: string): string {
  return text
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&apos;', "'")
    .replaceAll('&amp;', '&')
}
