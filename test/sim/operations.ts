/** What the applications of sites may do to their tables. */
import type { Random } from './random.ts'

const PLACES = 3
const VISITS = 4
const TAGS = 4
const SLOTS = 3

function keyOf(n: number): string {
  return `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
}

export const PROBES = ['probe 1', 'probe 2'] as const
/** Those that take their place. */
export const OTHERS = ['other 1', 'other 2'] as const
const NOWHERE = keyOf(199)
export const ALL_IDS: readonly string[] = [
  ...[...Array(PLACES).keys()].map((n) => keyOf(101 + n)),
  ...[...Array(VISITS).keys()].map((n) => keyOf(201 + n)),
  ...[...Array(TAGS).keys()].map((n) => `t${n}`),
  ...PROBES,
  ...OTHERS,
  NOWHERE,
]

const KINDS = {
  putPlace: 24,
  changePlace: 10,
  removePlace: 5,
  putVisit: 22,
  changeVisit: 7,
  removeVisit: 5,
  putTag: 22,
  changeTags: 10,
  removeTag: 5,
  sameTag: 4,
  noteTag: 6,
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

export function operationOf(random: Random, kind = random.weighted(KINDS)): Operation {
  const place = `'${keyOf(101 + random.below(PLACES))}'`
  const visit = `'${keyOf(201 + random.below(VISITS))}'`
  const tag = `'t${random.below(TAGS)}'`
  const code = random.chance(0.5) ? 'null' : `'c${random.below(SLOTS)}'`
  const slot = random.chance(0.4) ? 'null' : `'s${random.below(SLOTS)}'`
  const at = `(select id from place where key = ${random.chance(0.15) ? `'${NOWHERE}'` : place})`
  const number = `${random.below(9)}.${random.below(9)}0`
  const pair = random.below(TAGS / 2)
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
    changeTags: [`update tag set label = $word || '-' || id where id in ('t${2 * pair}', 't${2 * pair + 1}')`],
    removeTag: [`delete from tag where id = ${tag}`],
    sameTag: [
      `insert into tag (id, label) values (${tag}, 'same') on conflict (id) do update set label = 'same', slot = null`,
    ],
    noteTag: [
      `insert into tag (id, label, note) values (${tag}, $word, $word) on conflict (id) do update set label = excluded.label, note = excluded.note`,
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
