/** What a rival must be able to do, and what a scenario may ask of it. */
import type { Contents, Oracle, State } from './judge.ts'

export type Values = Readonly<Record<string, string | number | null>>
export type Row = Readonly<Record<string, unknown>>

/** One site of a system, as the application at that site sees it. */
export type Member = {
  readonly name: string
  /** Inserts the record, or changes the given columns of it. Resolves when the site confirmed it. */
  readonly put: (table: string, id: string, values: Values) => Promise<void>
  readonly remove: (table: string, id: string) => Promise<void>
  readonly contents: () => Promise<Contents>
  /** The statement of an application or administrator, where there is SQL; a transaction when there are several in it. */
  readonly sql: (text: string, values?: readonly unknown[]) => Promise<Row[]>
  /** A connection that stays open until `end`. */
  readonly connect: () => Promise<{ readonly sql: Member['sql']; readonly end: () => Promise<void> }>
  /** A change of the tables, with what the handbook of the system tells an administrator to do after it. */
  readonly alter: (text: string) => Promise<void>
}

export type System = {
  readonly members: readonly Member[]
  /** One exchange over every link. False when the system itself reports a failure. A continuous system waits a little. */
  readonly round: () => Promise<boolean>
  /** Rounds in which nothing moves before the system counts as quiet. */
  readonly quietRounds: number
  /** Cuts all links, and joins them again; nothing to do for a system that exchanges only in a round. */
  readonly part: () => Promise<void>
  readonly join: () => Promise<void>
  /** Key → why, of records that the system names as waiting. */
  readonly waiting: () => Promise<ReadonlyMap<string, string>>
  /** What the system kept of writes that gave way, as one text. */
  readonly kept: (key: string) => Promise<string>
  /** Compares the sites by the system's own means; undefined when it has none. */
  readonly saysEqual: () => Promise<boolean | undefined>
  /** What an operator does once the cause of a failure is gone: retry, restart, resume. */
  readonly resume: () => Promise<void>
  /** Kills, without warning, the programs of one site, its database included; `revive` starts what is not running. */
  readonly kill: (member: number, what: 'program' | 'database') => Promise<void>
  readonly revive: () => Promise<void>
  /** Copies the data of a site as it stands, and puts it back later. */
  readonly backUp: (member: number) => Promise<() => Promise<void>>
  /** Moves the clock of one site. */
  readonly setClock: (member: number, seconds: number) => Promise<void>
  /** From now on every writing request between the sites is delivered twice, and some answers are lost. */
  readonly duplicate: () => Promise<void>
  /** Delivers every writing request that there ever was once more. */
  readonly replay: () => Promise<void>
  /** Accepts larger records, where that is a setting. */
  readonly raiseLimits: () => Promise<void>
  readonly close: () => Promise<void>
}

export type Shape = {
  /** SQL that makes the tables at every site, each with a primary key `id`. */
  readonly ddl: string
  readonly tables: readonly string[]
  readonly sites: 2 | 3
  readonly needs: readonly Need[]
}

/** What a scenario cannot do without. `sql` = constraints, columns, transactions: anything only a relational database has. */
export type Need = 'sql' | 'clock' | 'duplicate' | 'backup'

export type Rival = {
  readonly name: string
  /** Brings the rival onto this machine where it is missing. Rejects with a sentence why it cannot be had here. */
  readonly install: () => Promise<{ readonly version: string }>
  /** Why this rival has no notion of something. */
  readonly without: Partial<Readonly<Record<Need, string>>>
  readonly open: (shape: Shape) => Promise<System>
  /** Ends what was kept between scenarios. */
  readonly end: () => Promise<void>
}

/** What a scenario is given: the sites, and an oracle that is told of every confirmed write. */
export type Contest = {
  readonly system: System
  readonly oracle: Oracle
  readonly a: Member
  readonly b: Member
  readonly c: Member
  /** Puts, and tells the oracle what the site confirmed. */
  readonly put: (member: Member, table: string, id: string, values: Values) => Promise<void>
  readonly remove: (member: Member, table: string, id: string) => Promise<void>
  /** Writes of two sites that do not know of each other; `mark` is in every one of them. Null removes. */
  readonly race: (
    table: string,
    id: string,
    writes: readonly (readonly [Member, Values | null, string?])[],
  ) => Promise<void>
  /** What happens while no site hears of another. */
  readonly apart: (work: () => Promise<void>) => Promise<void>
  /** Tells the oracle what stands at a site now, after SQL of the scenario's own. */
  readonly confirm: (member: Member, ...keys: readonly string[]) => Promise<void>
  readonly stateAt: (member: Member, key: string) => Promise<State>
  /** Exchanges until nothing moves, at most for the bound. */
  readonly settle: () => Promise<void>
  /** These records have nothing to do with the fault: one that is not the same everywhere now is stuck. */
  readonly mustFlow: (...keys: readonly string[]) => Promise<void>
  /** Children at any site whose parent is not there: a state that the constraint of that site forbids. */
  readonly noOrphans: (child: string, column: string, parent: string) => Promise<void>
  /** A whole number below a bound, the same in every run. */
  readonly chance: (below: number) => number
}

export type Scenario = {
  readonly name: string
  readonly group: 'fault' | 'situation'
  /** One sentence: what is done. */
  readonly about: string
  readonly shape: Shape
  readonly act: (contest: Contest) => Promise<void>
  /** What mends the fault: the network, the clock, a person. */
  readonly heal?: (contest: Contest) => Promise<void>
}
