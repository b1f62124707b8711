/** Faults of time and order: clocks, seconds, late commits, crashes. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Contest, Member, Scenario } from '../contest.ts'
import { ITEM, id, item } from './tables.ts'

const KILLS = 8
const ROWS = 200

/** Writes at one site, all confirmed before they are noted. */
async function write(contest: Contest, at: Member, from: number, count: number, word: string): Promise<void> {
  const numbers = Array.from({ length: count }, (_, n) => from + n)
  for (const n of numbers) await at.put('item', id(n), { name: `${word} ${n}`, qty: n, note: word })
  await contest.confirm(at, ...numbers.map(item))
}

export const killAtRandom: Scenario = {
  name: 'kill at random',
  group: 'fault',
  about: `${KILLS} times kill -9 of the program or the database of either site in the middle of an exchange, while both sites write`,
  shape: ITEM,
  act: async (contest) => {
    const { a, b, system, chance } = contest
    await write(contest, a, 1_000, ROWS, 'first of a')
    await write(contest, b, 2_000, ROWS, 'first of b')
    for (let round = 0; round < KILLS; round++) {
      await write(contest, a, 1_000 + chance(ROWS - 40), 40, `a in round ${round}`)
      await write(contest, b, 3_000 + round * 20, 20, `b in round ${round}`)
      await contest.remove(b, 'item', id(2_000 + round))
      const running = system.round().catch(() => false)
      await sleep(20 + chance(400))
      await system.kill(round % 2, round % 4 < 2 ? 'program' : 'database')
      await running
      await system.revive()
    }
  },
}

export const clockBack: Scenario = {
  name: 'clock one hour back',
  group: 'fault',
  about:
    'the clock of one site goes back an hour; what is written there afterwards had seen what the other site wrote before',
  shape: { ...ITEM, needs: ['clock'] },
  act: async (contest) => {
    const { a, b, system } = contest
    for (const n of [1, 2, 3, 4]) await contest.put(a, 'item', id(n), { name: 'first', qty: n })
    await contest.settle()
    await contest.put(b, 'item', id(2), { name: 'b saw first', qty: 20 })
    await contest.put(b, 'item', id(3), { name: 'b saw first', qty: 30 })
    await contest.settle()
    await system.setClock(0, -3600)
    await contest.put(a, 'item', id(1), { name: 'a after its clock went back', qty: 100 })
    await contest.put(a, 'item', id(2), { name: 'a saw what b wrote', qty: 200 })
    await contest.remove(a, 'item', id(3))
    await contest.put(a, 'item', id(5), { name: 'new in the hour that comes twice', qty: 5 })
    await contest.settle()
    await contest.put(b, 'item', id(4), { name: 'b goes on', qty: 400 })
    await contest.put(b, 'item', id(5), { name: 'b saw the new one', qty: 500 })
    await contest.settle()
  },
  heal: async ({ system, put, a }) => {
    await system.setClock(0, 0)
    await system.resume()
    await put(a, 'item', id(6), { name: 'after the clock was set right', qty: 6 })
  },
}

export const oneSecond: Scenario = {
  name: 'two edits in one second',
  group: 'fault',
  about:
    'a record is edited, exchanged, and edited again within one second; and both sites edit one record in the same second',
  shape: ITEM,
  act: async (contest) => {
    const { a, b, system } = contest
    for (let n = 1; n <= 4; n++) {
      // From the beginning of a second, so that everything up to the second edit fits into it.
      await sleep(1_000 - (Date.now() % 1_000))
      await contest.put(a, 'item', id(n), { name: `edit one of ${n}`, qty: 1 })
      if (n % 2 === 0) await system.round()
      await contest.put(a, 'item', id(n), { name: `edit two of ${n}`, qty: 2 })
      await system.round()
    }
    await contest.settle()
    await sleep(1_000 - (Date.now() % 1_000))
    await contest.race('item', id(1), [
      [a, { name: 'race of a' }, 'race of a'],
      [b, { name: 'race of b' }, 'race of b'],
    ])
  },
}

export const lateCommit: Scenario = {
  name: 'late commit',
  group: 'fault',
  about: 'a transaction writes, stays open while others commit and are exchanged, and commits last',
  shape: { ...ITEM, needs: ['sql'] },
  act: async (contest) => {
    const { a, b } = contest
    for (const n of [1, 2, 3]) await contest.put(a, 'item', id(n), { name: 'first', qty: n })
    await contest.settle()
    const [late, later] = [await a.connect(), await b.connect()]
    await late.sql('begin')
    await late.sql(`insert into item values ('${id(10)}', 'late insert', 10)`)
    await late.sql(`update item set name = 'late update' where id = '${id(1)}'`)
    await contest.put(a, 'item', id(2), { name: 'committed meanwhile', qty: 2 })
    await contest.settle()
    await later.sql('begin')
    await later.sql(`insert into item values ('${id(11)}', 'later insert at b', 11)`)
    await contest.put(a, 'item', id(12), { name: 'also meanwhile', qty: 12 })
    await contest.put(b, 'item', id(13), { name: 'at b meanwhile', qty: 13 })
    await contest.settle()
    await late.sql('commit')
    await contest.settle()
    await later.sql('commit')
    await Promise.all([late.end(), later.end()])
    await contest.confirm(a, item(1), item(10))
    await contest.confirm(b, item(11))
  },
}
