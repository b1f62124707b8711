/**
 * The oracle of confirmed writes and the verdict by a full comparison. Pure: it knows neither a database nor a rival, only what was
 * confirmed to the application, what every site holds in the end, and what the system itself says of records that are not there yet.
 *
 * A record counts once, by the worst that happened to it:
 * - **lost**: a confirmed write is in effect nowhere, or the side of a conflict that gave way is kept nowhere
 * - **revived**: deleted, confirmed, and here again, with nobody having written it since
 * - **diverged**: the sites hold different things and the system says nothing of it, or hold what their own constraints forbid
 * - **stuck**: the system names the record as waiting although what it waited for is mended, or a record that has nothing to do with the
 *   fault did not pass while another one waited
 */

/** Columns of a record as text, as its site shows them; null for a record that does not exist. */
export type State = Readonly<Record<string, string | null>> | null

/** `table/id` → state. */
export type Contents = ReadonlyMap<string, State>

export type Trouble = 'lost' | 'revived' | 'diverged' | 'stuck'

/** One of several writes that did not know of each other. */
export type Candidate = {
  readonly state: State
  /** A word that only this write contains: where it is found, the write is kept. Absent for a deletion, which has nothing to keep. */
  readonly mark?: string
}

type Expectation = {
  readonly oneOf: readonly Candidate[]
  /** What was there before a confirmed deletion, to tell a revived record from a lost deletion. */
  readonly deleted: boolean
}

export type Verdict = Readonly<Record<Trouble, number>> & { readonly notes: readonly string[] }

/** What was confirmed to the application. The last word on a record counts. */
export class Oracle {
  readonly #expected = new Map<string, Expectation>()
  readonly #faults: { readonly trouble: Trouble; readonly note: string }[] = []

  /** A write that had seen every earlier one of this record. */
  wrote(key: string, state: State): void {
    this.#expected.set(key, { oneOf: [{ state }], deleted: state === null })
  }

  /** A deletion that had seen every earlier write of this record. */
  removed(key: string): void {
    this.wrote(key, null)
  }

  /** Writes that did not know of each other. One of them wins, or they are merged by column; what gives way must be kept. */
  raced(key: string, oneOf: readonly Candidate[]): void {
    this.#expected.set(key, { oneOf, deleted: oneOf.every(({ state }) => state === null) })
  }

  /** A trouble that a scenario saw by itself, while the fault lasted. */
  saw(trouble: Trouble, note: string): void {
    this.#faults.push({ trouble, note })
  }

  get expected(): ReadonlyMap<string, Expectation> {
    return this.#expected
  }

  get faults(): readonly { readonly trouble: Trouble; readonly note: string }[] {
    return this.#faults
  }
}

export type Evidence = {
  /** Every site's name and everything it holds. */
  readonly sites: readonly { readonly name: string; readonly contents: Contents }[]
  /** Key → why, for the records that the system itself names as waiting for something or somebody. */
  readonly waiting: ReadonlyMap<string, string>
  /** What the system's own comparison of the sites says; undefined when it has none. */
  readonly saysEqual?: boolean | undefined
  /** Everything that the system kept about the writes of a record that gave way, as one text. */
  readonly kept: ReadonlyMap<string, string>
}

export function judge(oracle: Oracle, { sites, waiting, kept, saysEqual }: Evidence): Verdict {
  const found: { trouble: Trouble; note: string }[] = [...oracle.faults]
  const keys = new Set([...oracle.expected.keys(), ...sites.flatMap(({ contents }) => [...contents.keys()])])
  for (const key of keys) {
    const expected = oracle.expected.get(key)
    const held = sites.map(({ contents }) => contents.get(key) ?? null)
    const trouble =
      expected === undefined
        ? strange(key, held)
        : troubleOf(key, expected, held, waiting.get(key), kept.get(key) ?? '')
    if (trouble !== undefined) found.push(trouble)
  }
  const equal = [...keys].every(
    (key) => new Set(sites.map(({ contents }) => canonical(contents.get(key) ?? null))).size === 1,
  )
  if (saysEqual === true && !equal)
    found.push({ trouble: 'diverged', note: 'its own comparison calls sites equal that are not' })
  if (saysEqual === false && equal && waiting.size === 0)
    found.push({ trouble: 'diverged', note: 'its own comparison finds a difference between sites that are equal' })
  const count = (trouble: Trouble) => found.filter((each) => each.trouble === trouble).length
  return {
    lost: count('lost'),
    revived: count('revived'),
    diverged: count('diverged'),
    stuck: count('stuck'),
    notes: found.map(({ trouble, note }) => `${trouble}: ${note}`),
  }
}

export function isClean(verdict: Verdict): boolean {
  return verdict.lost + verdict.revived + verdict.diverged + verdict.stuck === 0
}

function strange(key: string, held: readonly State[]) {
  return { trouble: 'diverged' as const, note: `${key} was never written: ${held.map(show).join(' | ')}` }
}

function troubleOf(
  key: string,
  { oneOf, deleted }: Expectation,
  held: readonly State[],
  waits: string | undefined,
  kept: string,
): { trouble: Trouble; note: string } | undefined {
  const found = held.map(show).join(' | ')
  const wanted = oneOf.map(({ state }) => show(state)).join(' or ')
  const right = held.filter((state) => accepted(state, oneOf))
  if (waits !== undefined) return { trouble: 'stuck', note: `${key} waits (${waits}): ${found} instead of ${wanted}` }
  if (right.length === 0) {
    const trouble = deleted ? ('revived' as const) : ('lost' as const)
    return { trouble, note: `${key} is ${found} instead of ${wanted}` }
  }
  if (new Set(held.map(canonical)).size > 1)
    return { trouble: 'diverged', note: `${key} is ${found}, wanted ${wanted}` }
  const gone = oneOf.filter(
    ({ mark }) => mark !== undefined && !canonical(held[0] ?? null).includes(mark) && !kept.includes(mark),
  )
  if (gone.length > 0) {
    return {
      trouble: 'lost',
      note: `${key}: ${gone.map(({ state }) => show(state)).join(' and ')} gave way and is kept nowhere`,
    }
  }
  return undefined
}

/** One of the candidates, or column by column from any of them: a merge. */
function accepted(state: State, oneOf: readonly Candidate[]): boolean {
  if (oneOf.some((candidate) => canonical(candidate.state) === canonical(state))) return true
  if (state === null) return false
  const living = oneOf.flatMap((candidate) => (candidate.state === null ? [] : [candidate.state]))
  return (
    living.length > 1 &&
    living.every((each) => sameColumns(each, state)) &&
    Object.entries(state).every(([column, value]) => living.some((each) => each[column] === value))
  )
}

function sameColumns(a: NonNullable<State>, b: NonNullable<State>): boolean {
  return Object.keys(a).sort().join() === Object.keys(b).sort().join()
}

export function canonical(state: State): string {
  return state === null ? 'nothing' : JSON.stringify(Object.entries(state).sort(([a], [b]) => (a < b ? -1 : 1)))
}

const SHOWN = 60

function show(state: State): string {
  if (state === null) return 'nothing'
  const text = Object.entries(state)
    .filter(([column, value]) => column !== 'id' && value !== null)
    .map(([column, value]) => `${column}=${value}`)
    .join(' ')
  return `{${text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text}}`
}
