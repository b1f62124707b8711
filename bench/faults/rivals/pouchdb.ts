/** PouchDB with its HTTP server (CouchDB's protocol): a process and a LevelDB for each site, documents instead of rows. */
import { type ChildProcess, spawn } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { asUser, plainEnvironment } from '../../../test/support/environment.ts'
import { freePort, type Owner } from '../../../test/support/postgres.ts'
import type { Member, Rival, Shape, System, Values } from '../contest.ts'
import type { State } from '../judge.ts'
import { NAMES } from '../sql-sites.ts'
import { repeating, startWire } from '../wire.ts'
import { clockLibrary, installNpm, NPM_PACKAGES } from './install.ts'
import { clocksFor, type Holder, opensWith } from './opening.ts'

/** The program of a site, as the package's own documentation has it. */
const PROGRAM = `
const PouchDB = require('pouchdb')
const [port, folder] = process.argv.slice(2)
const handler = require('express-pouchdb')(PouchDB.defaults({ prefix: folder + '/' }), { inMemoryConfig: true, logPath: folder + '/log.txt' })
require('express')().use('/', handler).listen(Number(port), '127.0.0.1', () => console.log('started'))
`
const DATABASE = 'contest'
const START_MS = 20_000

type Document = Record<string, unknown> & { readonly _id: string; readonly _rev: string }
type Site = {
  readonly url: string
  readonly member: Member
  readonly start: () => Promise<void>
  readonly kill: () => Promise<void>
  readonly folder: string
}

export function pouchdb(): Rival {
  let folder = ''
  let library: string | undefined
  return {
    name: 'PouchDB',
    without: {
      sql: 'documents without tables: no constraints, references, columns, transactions or types beyond JSON',
    },
    install: async () => {
      folder = await installNpm()
      library = await clockLibrary().catch(() => undefined)
      return { version: NPM_PACKAGES.pouchdb }
    },
    ...opensWith((owner, shape) => openSystem(owner, shape, folder, library)),
  }
}

async function openSystem(owner: Holder, shape: Shape, modules: string, library: string | undefined): Promise<System> {
  await writeFile(join(modules, 'site.cjs'), PROGRAM)
  const names = NAMES.slice(0, shape.sites)
  const clocks = await clocksFor(owner, shape, library)
  const sites = await Promise.all(names.map((name, n) => openSite(owner, name, modules, clocks[n]?.env ?? {})))
  const pairs =
    shape.sites === 2
      ? [[1, 0]]
      : [
          [1, 0],
          [2, 1],
          [0, 2],
        ]
  const links = await Promise.all(
    pairs.map(async ([from = 0, to = 0]) => ({
      from: sites[from] as Site,
      wire: await startWire(owner, (sites[to] as Site).url),
    })),
  )
  return {
    members: sites.map(({ member }) => member),
    quietRounds: 3,
    round: async () => {
      let well = true
      for (const { from, wire } of links) {
        const there = `${wire.url}/${DATABASE}`
        for (const [source, target] of [
          [there, DATABASE],
          [DATABASE, there],
        ])
          well = (await replicated(from.url, { source, target })) && well
      }
      return well
    },
    waiting: async () => new Map(),
    kept: async (key) => (await Promise.all(sites.map(({ url }) => branchesOf(url, key)))).join('\n'),
    saysEqual: async () => undefined,
    resume: async () => {},
    kill: (member) => (sites[member] as Site).kill(),
    revive: async () => {
      for (const site of sites) {
        await site.kill()
        await site.start()
      }
    },
    backUp: async (member) => {
      const site = sites[member] as Site
      const copy = `${site.folder}-copy`
      await site.kill()
      await cp(site.folder, copy, { recursive: true })
      await site.start()
      return async () => {
        await site.kill()
        await rm(site.folder, { recursive: true, force: true })
        await cp(copy, site.folder, { recursive: true })
        await site.start()
      }
    },
    setClock: async (member, seconds) => clocks[member]?.set(seconds),
    ...repeating(links),
    raiseLimits: async () => {},
    part: async () => {},
    join: async () => {},
    close: () => owner.end(),
  }
}

async function openSite(
  owner: Owner,
  name: string,
  modules: string,
  env: Readonly<Record<string, string>>,
): Promise<Site> {
  const home = await mkdtemp(join(tmpdir(), `syncline-pouchdb-${name}-`))
  owner.teardown(() => rm(home, { recursive: true, force: true }))
  const folder = join(home, 'data')
  await mkdir(folder)
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  let child: ChildProcess | undefined
  const kill = async () => {
    const killed = child
    child = undefined
    if (killed === undefined || killed.exitCode !== null || killed.signalCode !== null) return
    const ended = new Promise((resolve) => killed.once('exit', resolve))
    killed.kill('SIGKILL')
    await ended
  }
  owner.teardown(kill)
  const start = async () => {
    // Its server does not catch a replication that breaks off. Later Nodes end a process for that, the one it was written for did not.
    const args = ['--unhandled-rejections=warn', join(modules, 'site.cjs'), String(port), folder]
    child = spawn(...asUser(process.execPath, args), { env: plainEnvironment(env), cwd: folder, stdio: 'ignore' })
    const deadline = performance.now() + START_MS
    for (;;) {
      const made = await fetch(`${url}/${DATABASE}`, { method: 'PUT' }).catch(() => undefined)
      if (made !== undefined && (made.ok || made.status === 412)) return
      if (performance.now() > deadline) throw new Error(`PouchDB at ${name} did not start`)
      await sleep(50)
    }
  }
  await start()
  return { url, folder, start, kill, member: memberOf(name, url) }
}

function memberOf(name: string, url: string): Member {
  const noSql = () => Promise.reject(new Error('PouchDB has no SQL'))
  return {
    name,
    put: async (table, id, values) => {
      const before = await read(url, keyOf(table, id))
      await save(url, { ...(before ?? {}), ...texts(values), _id: keyOf(table, id) })
    },
    remove: async (table, id) => {
      const before = await read(url, keyOf(table, id))
      if (before === undefined) throw new Error(`${keyOf(table, id)} is not there`)
      await save(url, { _id: before._id, _rev: before._rev, _deleted: true })
    },
    contents: async () => {
      const answer = await fetch(`${url}/${DATABASE}/_all_docs?include_docs=true`)
      if (!answer.ok) throw new Error(`${name}: ${answer.status} ${await answer.text()}`)
      const { rows } = (await answer.json()) as { rows: { id: string; doc: Record<string, unknown> }[] }
      return new Map(rows.map(({ id, doc }): [string, State] => [id, stateOf(doc)]))
    },
    sql: noSql,
    connect: noSql,
    alter: noSql,
  }
}

const keyOf = (table: string, id: string) => `${table}/${id}`

function texts(values: Values): Record<string, string | null> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, value === null ? null : String(value)]),
  )
}

function stateOf(doc: Record<string, unknown>): State {
  return Object.fromEntries(
    Object.entries(doc).flatMap(([name, value]) => (name.startsWith('_') ? [] : [[name, value as string | null]])),
  )
}

async function read(url: string, id: string): Promise<Document | undefined> {
  const answer = await fetch(`${url}/${DATABASE}/${encodeURIComponent(id)}`)
  if (answer.status === 404) return undefined
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`)
  return (await answer.json()) as Document
}

async function save(url: string, doc: Record<string, unknown>): Promise<void> {
  const answer = await fetch(`${url}/${DATABASE}/${encodeURIComponent(String(doc._id))}`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(doc),
  })
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`)
}

async function replicated(
  url: string,
  body: { source?: string | undefined; target?: string | undefined },
): Promise<boolean> {
  try {
    const answer = await fetch(`${url}/_replicate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(20_000),
    })
    const { ok } = (await answer.json()) as { ok?: boolean }
    return answer.ok && ok === true
  } catch {
    return false
  }
}

/** All living branches of a document's tree of revisions, and what they hold. */
async function branchesOf(url: string, key: string): Promise<string> {
  const answer = await fetch(`${url}/${DATABASE}/${encodeURIComponent(key)}?open_revs=all`, {
    headers: { accept: 'application/json' },
  })
  return answer.ok ? answer.text() : ''
}
