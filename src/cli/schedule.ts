import { noun, type Register, verb } from './command.ts'
import { when } from './task.ts'
import { cell, time, until } from './text.ts'

type Due = {
  readonly taskId: number
  readonly peer: string
  readonly resource: string
  readonly schedule: string
  readonly at: string | null
}

/** `schedule list`: when tasks run next. */
export const schedule: Register = (program, session) => {
  const schedule = noun(program, 'schedule', 'When tasks run')

  verb(schedule, session, {
    use: 'list',
    does: 'Lists when each scheduled task runs next',
    examples: ['syncline schedule list'],
    run: async ({ site, out }) => {
      const { items } = await (await site()).get<{ readonly items: readonly Due[] }>('/schedules')
      await out.result({ items }, () =>
        out.table(
          ['TASK', 'PEER', 'RESOURCE', 'WHEN', 'NEXT', ''],
          items.map(({ taskId, peer, resource, schedule, at }) => [
            String(taskId),
            cell(peer),
            resource,
            when(schedule),
            time(at),
            at === null ? '' : until(at, Date.now()),
          ]),
        ),
      )
    },
  })
}
