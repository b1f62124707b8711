/**
 * What happened, written down outside of the sites: every write of an application or a person with the writes that it had seen. It judges
 * what the sites hold without asking their versions: a write is known by its label, a unique word in the row.
 */
import type { ResourceName } from './cluster.ts'

export type Write = {
  readonly n: number
  readonly site: string
  readonly resource: string
  readonly id: string
  /** The word in the row; null for a deletion. */
  readonly label: string | null
  readonly origin: string
  readonly clock: string
  /** Writes that were in the row when this one was made. */
  readonly parents: readonly Write[]
  readonly children: Write[]
  /** Nobody has it any more since a database was put back: it may be gone. */
  lost: boolean
}

/** One record of a site, or of history, quarantine or a conflict there. */
export type Held = {
  readonly resource: string
  readonly id: string
  readonly origin: string
  readonly clock: string
  readonly deleted: boolean
  readonly label: string | null
  /** What the version has seen, by origin; absent where only a dot is known. */
  readonly seen?: Readonly<Record<string, number>> | null
}

/** What one site holds: its records, and what waits or was overwritten. */
export type Holding = { readonly site: string; readonly records: readonly Held[]; readonly kept: readonly Held[] }

export type NewWrite = Omit<Held, 'deleted' | 'resource'> & {
  readonly resource: ResourceName | string
  readonly site: string
  readonly deleted: boolean
  /** What the row was before, as the site had it; absent when there was nothing. */
  readonly before?: Held | undefined
  /** More that whoever wrote had before the eyes: the other side of a conflict. */
  readonly also?: readonly Held[]
}

export type Oracle = ReturnType<typeof createOracle>

export function createOracle() {
  const writes: Write[] = []
  const byDot = new Map<string, Write>()
  const byRecord = new Map<string, Write[]>()
  const dot = (held: Pick<Held, 'resource' | 'id' | 'origin' | 'clock'>) =>
    `${held.resource} ${held.id} ${held.origin} ${held.clock}`
  const record = (held: Pick<Held, 'resource' | 'id'>) => `${held.resource} ${held.id}`

  /** The write that stands in a row. A version that nobody wrote was made by the program of known content. */
  function find(held: Held): Write | undefined {
    const known = byDot.get(dot(held))
    if (known !== undefined) return known
    return (byRecord.get(record(held)) ?? []).findLast((write) =>
      held.deleted ? write.label === null : write.label === held.label,
    )
  }

  function add(write: NewWrite): Write {
    const seen = [write.before, ...(write.also ?? [])].flatMap((held) => (held === undefined ? [] : [find(held)]))
    const parents = [...new Set(seen)].filter((each) => each !== undefined)
    const { site, resource, id, origin, clock } = write
    const made: Write = {
      ...{ n: writes.length + 1, site, resource, id, origin, clock, parents, children: [], lost: false },
      label: write.deleted ? null : write.label,
    }
    if (byDot.has(dot(made))) throw new Finding(`two writes share the version ${dot(made)}`)
    writes.push(made)
    byDot.set(dot(made), made)
    byRecord.set(record(made), [...(byRecord.get(record(made)) ?? []), made])
    for (const parent of parents) parent.children.push(made)
    return made
  }

  /**
   * Takes up versions that a program made by itself: it merged two, or brought a record back that others need. Of these alone the word of the
   * program is taken for what they had seen.
   */
  function learn(found: readonly Held[]): void {
    for (const held of found.toSorted((a, b) => Number(BigInt(a.clock) - BigInt(b.clock)))) {
      const { label, deleted, seen } = held
      if (seen === undefined || (label === null && !deleted) || byDot.has(dot(held))) continue
      const sees = (origin: string) => (origin === held.origin ? BigInt(held.clock) : BigInt(seen?.[origin] ?? 0))
      const also = (byRecord.get(record(held)) ?? []).filter((write) => sees(write.origin) >= BigInt(write.clock))
      add({ ...held, site: 'a program', also: also.map((write) => ({ ...write, deleted: write.label === null })) })
    }
  }

  /** True when the second write had seen the first one, over whatever writes in between. */
  function isBefore(first: Write, second: Write): boolean {
    return younger(first).has(second)
  }

  /**
   * Which writes somebody still has, as it is or as what lost; or something that replaced it. `known`: only what a version that is there is, or has seen:
   * another deletion of the same record, or the write that a decision repeated, is none of its.
   */
  function survivors(holdings: readonly Holding[], known = false): ReadonlySet<Write> {
    const here = new Set<Write>()
    const labels = new Set<string>()
    for (const held of holdings.flatMap(({ records, kept }) => [...records, ...kept])) {
      const write = byDot.get(dot(held))
      if (write !== undefined) here.add(write)
      if (held.label !== null && !held.deleted) labels.add(`${record(held)} ${held.label}`)
      if (held.deleted) labels.add(`${record(held)} deleted`)
    }
    // Tombstones may be purged; whatever lives nowhere is deleted.
    const living = new Set(holdings.flatMap(({ records }) => records.filter((held) => !held.deleted).map(record)))
    for (const write of writes) if (!living.has(record(write))) labels.add(`${record(write)} deleted`)
    const all = Map.groupBy(
      holdings.flatMap(({ records, kept }) => [...records, ...kept]),
      record,
    )
    const isSeen = (write: Write) =>
      (all.get(record(write)) ?? []).some((held) => BigInt(held.seen?.[write.origin] ?? 0) >= BigInt(write.clock))
    const there = (write: Write) =>
      here.has(write) || (labels.has(`${record(write)} ${write.label ?? 'deleted'}`) && (!known || isSeen(write)))
    const alive = new Set<Write>()
    // Children are younger than their parents.
    for (const write of writes.toReversed()) {
      if (there(write) || write.children.some((child) => alive.has(child))) alive.add(write)
    }
    return alive
  }

  return {
    writes,
    add,
    learn,
    isBefore,
    byDot: (held: Pick<Held, 'resource' | 'id' | 'origin' | 'clock'>) => byDot.get(dot(held)),

    /** After a database was put back: what nobody has any more cannot be asked for. */
    forgive(holdings: readonly Holding[]): number {
      learn(holdings.flatMap(({ records, kept }) => [...records, ...kept]))
      const alive = survivors(holdings, true)
      let count = 0
      for (const write of writes) {
        if (alive.has(write) || write.lost) continue
        write.lost = true
        count++
      }
      return count
    },

    /**
     * Faults of sites that are quiet and equal: what is lost, and what rose from the dead. With `newest`, also what won although something
     * that it did not know was newer.
     */
    judge(holdings: readonly Holding[], newest: boolean): readonly string[] {
      const faults: string[] = []
      learn(holdings.flatMap(({ records, kept }) => [...records, ...kept]))
      const alive = survivors(holdings)
      for (const write of writes) {
        if (!write.lost && !alive.has(write))
          faults.push(`lost: ${tell(write)} is nowhere, and nothing that had seen it`)
      }
      for (const [name, made] of byRecord) {
        const held = holdings[0]?.records.find((each) => record(each) === name)
        const final = held ?? { ...(made[0] as Write), deleted: true, label: null, origin: '', clock: '' }
        const word = final.deleted ? null : final.label
        const same = made.filter((write) => write.label === word)
        // A row was there before it was deleted, so what is not there was never written or is deleted.
        const greatest = same.filter((write) => ![...younger(write)].some((each) => !each.lost))
        if (same.length === 0 && made.some((write) => !write.lost)) {
          faults.push(
            `${name} is ${word ?? 'not there'}, which nobody wrote; written were ${made.map(tell).join(', ')}`,
          )
        } else if (same.length > 0 && greatest.length === 0) {
          const newer = [...younger(same.at(-1) as Write)].filter((each) => !each.lost)
          faults.push(`revived: ${name} is ${word ?? 'deleted'} although ${newer.map(tell).join(', ')} had seen that`)
        }
        const best = made
          .filter((write) => !write.lost && ![...younger(write)].some((each) => !each.lost))
          .toSorted(byNewest)
          .at(-1)
        if (newest && best !== undefined && best.label !== word && !made.some((write) => write.lost)) {
          faults.push(`not the newest: ${name} is ${word ?? 'deleted'} although ${tell(best)} is newer`)
        }
      }
      return faults
    },
  }

  /** Everything that had seen a write. */
  function younger(write: Write): ReadonlySet<Write> {
    const found = new Set<Write>()
    const add = (each: Write) => {
      if (found.has(each)) return
      found.add(each)
      each.children.forEach(add)
    }
    write.children.forEach(add)
    return found
  }
}

function byNewest(a: Write, b: Write): number {
  return Number(BigInt(a.clock) - BigInt(b.clock)) || (a.origin < b.origin ? -1 : 1)
}

export function tell(write: Write): string {
  return `${write.site}'s ${write.label ?? 'deletion'} of ${write.resource} ${shorten(write.id)}`
}

/** Ids of the simulation end in what tells them apart. */
export function shorten(id: string): string {
  return id.replace(/^00000000-0000-4000-8000-0*/, '')
}

/** An invariant that does not hold. */
export class Finding extends Error {
  override readonly name = 'Finding'
}
