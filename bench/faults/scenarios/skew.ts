/** Situations of different tables and rules: a column more or less, a narrower one, a trigger that refuses, a value that is too large. */
import { createHash } from 'node:crypto'
import type { Scenario } from '../contest.ts'
import { begin, bystanders } from './flow.ts'
import { ITEM, id, item } from './tables.ts'

/** Two tables: what happens to one must not hold up the other. */
const TWO = {
  ...ITEM,
  ddl: `${ITEM.ddl}; create table other (id uuid primary key, name text)`,
  tables: ['item', 'other'],
  needs: ['sql'],
} as const

/** The end of a scenario in which a table of b was altered: it is altered again, and what waited is taken up. */
const putRight =
  (text: string): NonNullable<Scenario['heal']> =>
  async ({ b, system }) => {
    await b.alter(text)
    await system.resume()
  }

export const columnAdded: Scenario = {
  name: 'column added on one side',
  group: 'situation',
  about: 'one site adds a column and fills it; the other site adds it later',
  shape: TWO,
  act: async (contest) => {
    const { a, b } = contest
    await begin(contest, [1, 2], (qty) => ({ name: 'first', qty }))
    await a.alter('alter table item add column extra text')
    await contest.put(a, 'item', id(1), { extra: 'filled at a' })
    await contest.put(a, 'item', id(3), { name: 'new at a', extra: 'with it' })
    await contest.settle()
    await contest.put(b, 'item', id(4), { name: 'new at b' })
    await bystanders(contest, 'other')
  },
  heal: async (contest) => {
    const { b, a, system } = contest
    await b.alter('alter table item add column extra text')
    await system.resume()
    await contest.confirm(b, item(4))
    await contest.settle()
    await contest.put(b, 'item', id(2), { extra: 'filled at b' })
    await contest.settle()
    await contest.put(a, 'item', id(4), { extra: 'filled at a in the end' })
  },
}

export const columnDropped: Scenario = {
  name: 'column dropped on one side',
  group: 'situation',
  about: 'one site drops a column while the other one goes on writing it; later it is added again',
  shape: TWO,
  act: async (contest) => {
    const { a, b } = contest
    await begin(contest, [1, 2], () => ({ name: 'first', note: 'old' }))
    await b.alter('alter table item drop column note')
    await contest.put(a, 'item', id(1), { note: 'written after the drop' })
    await contest.put(a, 'item', id(2), { note: 'written after the drop too' })
    await contest.put(a, 'item', id(3), { name: 'new at a', note: 'with it' })
    await contest.settle()
    await bystanders(contest, 'other')
    // A site without the column edits the record: what it does not know must not be emptied at the other.
    await b.put('item', id(2), { qty: 22 })
    contest.oracle.wrote(item(2), { ...(await contest.stateAt(a, item(2))), qty: '22' })
    await contest.settle()
  },
  heal: putRight('alter table item add column note text'),
}

export const narrower: Scenario = {
  name: 'narrower type on one side',
  group: 'situation',
  about: 'a text and a number that the other site has no room for; a person widens the columns there',
  shape: TWO,
  act: async (contest) => {
    const { a, b } = contest
    await begin(contest, [1, 2, 3], (qty) => ({ name: 'first', qty }))
    await b.alter('alter table item alter column name type varchar(8), alter column qty type smallint')
    await contest.put(a, 'item', id(1), { name: 'too long for that column' })
    await contest.put(a, 'item', id(2), { qty: 100_000 })
    await contest.settle()
    await contest.put(a, 'item', id(3), { name: 'short' })
    await contest.put(b, 'item', id(4), { name: 'at b' })
    await contest.settle()
    await contest.mustFlow(item(3), item(4))
    await bystanders(contest, 'other')
  },
  heal: putRight('alter table item alter column name type text, alter column qty type int'),
}

export const refusingTrigger: Scenario = {
  name: 'trigger that refuses',
  group: 'situation',
  about: 'a trigger of the other site refuses one record; a person removes the rule',
  shape: TWO,
  act: async (contest) => {
    const { a, b } = contest
    await b.sql(`
      create function refuse() returns trigger language plpgsql as $$ begin
        if new.name = 'refused' then raise exception 'not this one'; end if;
        return new;
      end $$;
      create trigger refuse before insert or update on item for each row execute function refuse();
      alter table item enable always trigger refuse`)
    await contest.put(a, 'item', id(1), { name: 'refused', qty: 1 })
    await contest.put(a, 'item', id(2), { name: 'welcome', qty: 2 })
    await contest.settle()
    await contest.put(b, 'item', id(3), { name: 'of b', qty: 3 })
    await contest.settle()
    await contest.mustFlow(item(2), item(3))
    await bystanders(contest, 'other')
  },
  heal: async ({ b, system }) => {
    await b.sql('drop trigger refuse on item')
    await system.resume()
  },
}

const LARGE = 20 << 20

export const largeValue: Scenario = {
  name: '20 MB value',
  group: 'situation',
  about: 'a text of 20 MB beside small records; where there is a limit, a person raises it',
  shape: ITEM,
  act: async (contest) => {
    const { a, b } = contest
    await contest.put(a, 'item', id(1), { name: 'large', note: incompressible(LARGE) })
    await contest.put(a, 'item', id(2), { name: 'small at a' })
    await contest.put(b, 'item', id(3), { name: 'small at b' })
    await contest.settle()
    await contest.mustFlow(item(2), item(3))
  },
  heal: async (contest) => {
    await contest.system.raiseLimits()
    await contest.system.resume()
    await contest.settle()
    await contest.put(contest.b, 'item', id(1), { name: 'large, edited at b' })
  },
}

/** Text that no compression makes smaller, the same in every run. */
function incompressible(length: number): string {
  const parts: string[] = []
  for (let n = 0; n * 88 < length; n++) parts.push(createHash('sha512').update(String(n)).digest('base64'))
  return parts.join('').slice(0, length)
}
