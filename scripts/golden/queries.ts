import pg from 'pg'
import {
  applyPull,
  attach,
  digestOf,
  findResource,
  receiveChanges,
  redrive,
  serveChanges,
  setGrant,
} from '../../src/store/index.ts'
import { type Change, linesOfChanges } from '../../src/sync/index.ts'
import type { Cluster } from '../../test/support/postgres.ts'
import { introduce, LIMITS, linkOf, peerOf, type Site, siteFactory, TASK } from '../../test/support/sites.ts'

export const file = 'test/golden/queries.sql'

const INTRODUCTION = `-- What the store sends to PostgreSQL on the paths where the plan decides: taken from a run, each statement where it is
-- sent first. What the query builder makes of simple look-ups is left out.
`

const DDL = `
  create table country (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text);
  create table city (
    id uuid primary key, country_id int not null references country, twin uuid references city on delete set null, name varchar(80), people int8,
    tags text[], facts jsonb, source json)`

/** Statements of a few fixed exchanges, in the order in which they are sent. */
export async function generate(cluster?: Cluster): Promise<string> {
  const ends: (() => Promise<void>)[] = []
  const sites = await siteFactory({ teardown: (end) => void ends.unshift(end) }, cluster)
  const query = pg.Client.prototype.query
  try {
    const [a, b] = [await sites.make('golden-a', DDL), await sites.make('golden-b', DDL)]
    const chapters: string[] = [INTRODUCTION]
    const known = new Set<string>()
    const chapter = async (title: string, work: () => Promise<unknown>) => {
      const texts: string[] = []
      pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
        const [config] = args as [string | { text: string }]
        texts.push(typeof config === 'string' ? config : config.text)
        return (query as (...args: unknown[]) => unknown).apply(this, args)
      } as typeof query
      try {
        await work()
      } finally {
        pg.Client.prototype.query = query
      }
      const fresh = texts.filter((text) => !DULL.test(text) && !known.has(text))
      chapters.push(`\n-- ${title}\n`, ...new Set(fresh.map((text) => `\n${tidy(text)};\n`)))
      for (const text of fresh) known.add(text)
    }
    await chapter('attach two tables', () => attach(a.store, [{ table: 'country' }, { table: 'city' }]))
    await attach(b.store, [{ table: 'country' }, { table: 'city' }])
    await introduce(a, b)
    await record(a, b, chapter)
    return chapters.join('')
  } finally {
    for (const end of ends) await end()
  }
}

type Chapter = (title: string, work: () => Promise<unknown>) => Promise<void>

async function record(a: Site, b: Site, chapter: Chapter): Promise<void> {
  const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
  const serve = (resource: string, filter?: string) => serveChanges(a.store, linkOf(a, b), { resource, filter }, LIMITS)
  const pull = async (resource: string) =>
    applyPull(b.store, linkOf(b, a), { task: TASK, batch: await serve(resource), runId: null }, LIMITS)
  await a.sql(
    `insert into country (name) values ('one'); insert into city (id, country_id, name) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 1, 'c' from generate_series(1, 4) n`,
  )
  await chapter('collect a batch', () => serve('city'))
  await chapter('collect a batch under a filter across a reference', () =>
    serve('city', "country.name = 'one' and people > 5"),
  )
  await pull('country')
  await chapter('apply records that are new', () => pull('city'))
  await a.sql(`update city set name = 'changed' where id <> '${id(4)}'; delete from city where id = '${id(4)}'`)
  await b.sql(`update city set name = 'concurrent' where id = '${id(3)}'`)
  await chapter('apply what supersedes, what is deleted and a conflict', () => pull('city'))
  await setGrant(b.store.db, { peerId: peerOf(b, a).id, resource: 'city', direction: 'push', filter: 'people < 100' })
  const changes: readonly Change[] = [
    { kind: 'put', id: id(8), data: { people: 5 }, refs: { country_id: { resource: 'country', id: id(1) } } },
    { kind: 'put', id: id(1), data: { people: 500 } },
  ]
  const batches = linesOfChanges('city', changes, { country_id: 'country' })
  const push = { resource: 'city', batches, byHand: true, runId: null }
  await chapter('take a push by hand within a grant', () => receiveChanges(b.store, linkOf(b, a), push, LIMITS))
  await b.sql('update syncline.quarantine set retry_at = now()')
  await chapter('try quarantine again', () => redrive(b.store, b.self, null, LIMITS))
  const resource = await findResource(a.store.db, 'city')
  await chapter('compare', () => digestOf(a.store.db, { resource }, { from: null, to: null }, 16))
}

/** What is the same everywhere and says nothing. */
const DULL = /^(begin|commit|rollback|start transaction)$|"syncline"\."/i

/** One indentation, whatever the place in the program that a statement was written at. */
function tidy(text: string): string {
  const lines = text.split('\n').map((line) => line.trimEnd())
  const depths = lines
    .slice(1)
    .filter(Boolean)
    .map((line) => line.length - line.trimStart().length)
  const depth = Math.min(...depths)
  return lines
    .map((line, n) => (n === 0 ? line : line.slice(depth)))
    .join('\n')
    .trim()
}
