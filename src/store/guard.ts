import { type Kysely, sql, type Transaction } from 'kysely'
import {
  type BrakePlace,
  type Brakes,
  brakesOf,
  judgeBrakes,
  type Pass,
  SynclineError,
  surelyWithin,
  type Trip,
} from '../sync/index.ts'
import {
  addToMeter,
  type Brake,
  type BrakeFacts,
  brakesWith,
  openBrake,
  passOf,
  readMeter,
  useBrake,
} from './brakes.ts'
import type { Store } from './database.ts'
import type { Link } from './exchange.ts'
import type { Grant } from './registry/index.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import type { StageCounts } from './stage.ts'

/** Ids that are shown to whoever is asked. */
export const SAMPLES_MAX = 10

/** What a batch, or all that is due, would do to records that live here. */
export type Counted = { readonly deletes: number; readonly changes: number }

/** A batch that went beyond what is allowed: nothing of its transaction stays. */
export class Braked extends SynclineError {
  readonly trips: readonly Trip[]
  readonly facts: BrakeFacts

  constructor(trips: readonly Trip[], facts: BrakeFacts) {
    super('SYNC_RUN_BRAKED', trips.map(({ reason }) => reason).join('; '))
    this.trips = trips
    this.facts = facts
  }
}

/** Records of a resource that live here. */
export async function livingCount(db: Kysely<Database>, resource: ResourceInfo): Promise<number> {
  const { rows } = await sql<{ living: number }>`
    select count(*)::int as living from syncline.record where resource_id = ${resource.id} and not deleted`.execute(db)
  return rows[0]?.living ?? 0
}

/** Called when a batch is classified and nothing of it is written yet. Throws to have all of its transaction rolled back. */
export type Guard = (trx: Transaction<Database>, counts: StageCounts) => Promise<void>

/** What was done before in the same run, or the same hour, and taking note of what is done now. */
export type Meter = {
  readonly read: (trx: Transaction<Database>) => Promise<Counted>
  readonly add: (trx: Transaction<Database>, counted: Counted) => Promise<void>
}

/**
 * The brake in the transaction that writes (I10): whatever was counted before, no more than is allowed is ever committed. Costs one look at the
 * staging table, and nothing for batches that only add.
 */
export function createGuard(
  resource: ResourceInfo,
  brakes: Pick<Brakes, 'maxDeletes' | 'maxChanges'>,
  place: BrakePlace,
  meter: Meter,
  pass: () => Pass | null,
): Guard {
  return async (trx, counts) => {
    if ((counts.f ?? 0) + (counts.r ?? 0) === 0) return
    const now = await stagedWeight(trx)
    if (now.deletes + now.changes === 0) return
    const before = await meter.read(trx)
    const deletes = before.deletes + now.deletes
    const changes = before.changes + now.changes
    if (!surelyWithin(brakes.maxDeletes, deletes) || !surelyWithin(brakes.maxChanges, changes)) {
      const living = (await livingCount(trx, resource)) + before.deletes
      const weight = { deletes, changes, living, empty: false, held: 0, canary: null }
      const trips = judgeBrakes(weight, { ...brakes, emptyGuard: false, canary: null }, place, pass())
      if (trips.length > 0) throw new Braked(trips, { deletes, changes, living, samples: await stagedSamples(trx) })
    }
    await meter.add(trx, now)
  }
}

const GONE = sql`(class = 'r' or class = 'f' and kind = 'd' and not l_deleted)`
const CHANGED = sql`(class = 'f' and kind = 'p' and not l_deleted)`

async function stagedWeight(trx: Transaction<Database>): Promise<Counted> {
  const { rows } = await sql<Counted>`
    select count(*) filter (where ${GONE})::int as deletes, count(*) filter (where ${CHANGED})::int as changes from pg_temp.syncline_stage`.execute(
    trx,
  )
  return rows[0] ?? { deletes: 0, changes: 0 }
}

async function stagedSamples(trx: Transaction<Database>): Promise<readonly string[]> {
  const { rows } = await sql<{ id: string }>`
    select id from pg_temp.syncline_stage where ${GONE} or ${CHANGED} order by class = 'f' and kind = 'p', n limit ${SAMPLES_MAX}`.execute(
    trx,
  )
  return rows.map(({ id }) => id)
}

/** The brake on what a peer pushes: by its grant, over an hour. `announced` is how many deletions it says to have still to send. */
export function receiveBrake(
  store: Store,
  { self, peer }: Link,
  resource: ResourceInfo,
  grant: Grant,
  announced: number,
): { readonly guard: Guard; readonly stopped: (error: unknown) => Promise<never> } {
  const brakes = brakesOf({ ...grant, emptyGuard: false, canary: null })
  const place: BrakePlace = { direction: 'receive', peer: peer.name, resource: grant.resource }
  let brake: Brake | undefined
  const meter: Meter = {
    read: async (trx) => {
      ;[brake] = await brakesWith(trx, peer.id, { resource: resource.name, direction: 'receive' })
      return readMeter(trx, peer.id, resource.id)
    },
    add: async (trx, counted) => {
      await addToMeter(trx, peer.id, resource.id, counted)
      if (brake !== undefined && brake.releasedAt !== null && brake.usedAt === null) await useBrake(trx, brake.id)
    },
  }
  return {
    guard: createGuard(resource, brakes, place, meter, () => passOf(brake)),
    // Written down outside of the transaction, which was rolled back.
    stopped: async (error) => {
      if (!(error instanceof Braked)) throw error
      const { trips, message } = error
      const still = announced > error.facts.deletes ? `; it announces ${announced} deletions in all` : ''
      const facts = { ...error.facts, announced: Math.max(announced, error.facts.deletes) }
      const rules = trips.map(({ rule }) => rule)
      const place = { peerId: peer.id, resourceId: resource.id, direction: 'receive' } as const
      await openBrake(store.db, { ...place, rules, reason: `${message}${still}`, facts, runId: null })
      throw new SynclineError(
        'SYNC_RUN_BRAKED',
        `${message}. A person at "${self.name}" can let it pass: \`syncline brake list --peer ${peer.name}\` there`,
      )
    },
  }
}
