/** What many scenarios do: records to begin with, and records beside the fault that must not be held up by it. */
import type { Contest } from '../contest.ts'
import { id } from './tables.ts'

type Row = Parameters<Contest['put']>[3]

/** Items written at a, and at both sites before the fault. */
export async function begin(contest: Contest, numbers: readonly number[], row: (n: number) => Row): Promise<void> {
  for (const n of numbers) await contest.put(contest.a, 'item', id(n), row(n))
  await contest.settle()
}

/** One record at each site that has nothing to do with the fault, written now, and to be at both after one exchange. */
export async function bystanders(contest: Contest, table = 'item'): Promise<void> {
  await contest.put(contest.a, table, id(91), { name: 'bystander at a' })
  await contest.put(contest.b, table, id(92), { name: 'bystander at b' })
  await contest.settle()
  await contest.mustFlow(`${table}/${id(91)}`, `${table}/${id(92)}`)
}
