/** What the application of a site does to its tables, each in a transaction of its own, and what the oracle is told of it. */
import type pg from 'pg'
import { recordsOf } from './inspect.ts'
import type { Held, NewWrite, Oracle } from './oracle.ts'
import type { Random } from './random.ts'

const PLACES = 5
const VISITS = 6
const TAGS = 6
const SLOTS = 4

export const keyOf = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

export const KINDS = {
  putPlace: 18,
  changePlace: 14,
  removePlace: 7,
  putVisit: 16,
  changeVisit: 10,
  removeVisit: 7,
  putTag: 16,
  changeTags: 8,
  removeTag: 8,
  sameTag: 4,
  again: 4,
  undone: 5,
  truncate: 1,
}
export type OperationKind = keyof typeof KINDS

/** One transaction of an application: statements whose `$word` becomes a word that no other write uses. */
export type Operation = {
  readonly kind: OperationKind
  readonly statements: readonly string[]
  readonly undone: boolean
}

export function operationOf(random: Random): Operation {
  const kind = random.weighted(KINDS)
  const place = `'${keyOf(101 + random.below(PLACES))}'`
  const visit = `'${keyOf(201 + random.below(VISITS))}'`
  const tag = `'t${random.below(TAGS)}'`
  const code = random.chance(0.5) ? 'null' : `'c${random.below(SLOTS)}'`
  const slot = random.chance(0.4) ? 'null' : `'s${random.below(SLOTS)}'`
  const at = `(select id from place where key = ${random.chance(0.15) ? `'${keyOf(199)}'` : place})`
  const number = `${random.below(9)}.${random.below(9)}0`
  const other = `'${keyOf(201 + random.below(VISITS))}'`
  const statements: Record<OperationKind, readonly string[]> = {
    putPlace: [
      `insert into place (key, code, label, amount) values (${place}, ${code}, $word, ${number}) on conflict (key) do update set label = excluded.label, code = excluded.code`,
    ],
    changePlace: [`update place set label = $word, amount = ${number} where key = ${place}`],
    removePlace: [`delete from visit where place_id = ${at}`, `delete from place where key = ${place}`],
    putVisit: [
      `insert into visit (key, place_id, label) values (${visit}, ${at}, $word) on conflict (key) do update set label = excluded.label, place_id = excluded.place_id`,
    ],
    changeVisit: [`update visit set label = $word, doc = '{"n": ${random.below(9)}}' where key = ${visit}`],
    removeVisit: [`delete from visit where key = ${visit}`],
    putTag: [
      `insert into tag (id, slot, label) values (${tag}, ${slot}, $word) on conflict (id) do update set label = excluded.label, slot = excluded.slot`,
    ],
    changeTags: [
      `update tag set label = $word || '-' || id where id in (${tag}, 't${random.below(TAGS)}', 't${random.below(TAGS)}')`,
    ],
    removeTag: [`delete from tag where id = ${tag}`],
    sameTag: [
      `insert into tag (id, label) values (${tag}, 'same') on conflict (id) do update set label = 'same', slot = null`,
    ],
    again: [
      `delete from visit where key = ${visit}`,
      `insert into visit (key, label) values (${visit}, $word)`,
      `update visit set label = $word where key = ${other}`,
    ],
    undone: [`update tag set label = $word`, `update place set label = $word`, `delete from visit`],
    truncate: ['truncate tag'],
  }
  return { kind, statements: statements[kind], undone: kind === 'undone' || random.chance(0.05) }
}

let words = 0
export function resetWords(): void {
  words = 0
}

/** What became of an operation: the records it wrote, or why the database refused it. */
export type Outcome = { readonly text: string; readonly writes: readonly NewWrite[] }

/** Begins a transaction and does what the operation says in it, without ending it. */
export async function beginOperation(client: pg.Client, site: string, operation: Operation): Promise<Outcome> {
  await client.query('begin')
  const before = new Map((await recordsOf(client)).map((held) => [`${held.resource} ${held.id}`, held as Held]))
  const made: NewWrite[] = []
  for (const statement of operation.statements) {
    const word = `w${++words}`
    try {
      await client.query(statement.replaceAll('$word', `'${word}'`))
    } catch (error) {
      await client.query('rollback')
      return { text: `refused: ${(error as Error).message}`, writes: [] }
    }
    const { rows } = await client.query<{ xact: string | null }>(
      'select pg_current_xact_id_if_assigned()::text as xact',
    )
    const own = rows[0]?.xact ?? null
    for (const held of await recordsOf(client)) {
      const name = `${held.resource} ${held.id}`
      const known = before.get(name)
      if (held.xact !== own || (known?.origin === held.origin && known.clock === held.clock)) continue
      made.push({ ...held, site, before: known })
      before.set(name, held)
    }
  }
  const what = made.map(
    ({ resource, id, deleted, label }) => `${resource} ${id.slice(-3)} ${deleted ? 'deleted' : label}`,
  )
  return { text: what.length === 0 ? 'nothing' : what.join(', '), writes: made }
}

/** Ends a transaction; only what was committed is told to the oracle. */
export async function endOperation(
  client: pg.Client,
  oracle: Oracle,
  outcome: Outcome,
  commit: boolean,
): Promise<string> {
  if (outcome.text.startsWith('refused')) return outcome.text
  try {
    await client.query(commit ? 'commit' : 'rollback')
  } catch (error) {
    return `refused: ${(error as Error).message}`
  }
  if (!commit) return `rolled back: ${outcome.text}`
  for (const write of outcome.writes) oracle.add(write)
  return outcome.text
}

export async function operate(client: pg.Client, site: string, operation: Operation, oracle: Oracle): Promise<string> {
  return endOperation(client, oracle, await beginOperation(client, site, operation), !operation.undone)
}

/** A statement of a person who mends something: its word is unique like any other. */
export async function mend(
  client: pg.Client,
  site: string,
  statements: readonly string[],
  oracle: Oracle,
): Promise<string> {
  return operate(client, site, { kind: 'putTag', statements, undone: false }, oracle)
}
