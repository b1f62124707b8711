/** The application of a site at work: each operation in a transaction of its own, and what the oracle is told of it. */
import type pg from 'pg'
import { recordsOf } from './inspect.ts'
import type { Operation } from './operations.ts'
import type { Held, NewWrite, Oracle } from './oracle.ts'

let words = 0
export function resetWords(): void {
  words = 0
}

/** What became of an operation: the records it wrote, or why the database refused it. */
export type Outcome = { readonly text: string; readonly writes: readonly NewWrite[] }

/** Begins a transaction and does what the operation says in it, without ending it. */
export async function beginOperation(
  client: pg.Client,
  site: string,
  operation: Operation,
  oracle: Oracle,
): Promise<Outcome> {
  await client.query('begin')
  const found = await recordsOf(client)
  oracle.learn(found)
  const before = new Map(found.map((held) => [`${held.resource} ${held.id}`, held as Held]))
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
  return endOperation(client, oracle, await beginOperation(client, site, operation, oracle), !operation.undone)
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
