/** The rule in cron's own meaning; `told` says where RsyncDirector's differs from it, `fault` that it cannot be written so. */
export type TakenCron = { readonly cron: string; readonly told?: string } | { readonly fault: string }

const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const

/**
 * RsyncDirector takes five fields as crontab does, but its scheduler counts the days of the week from Monday as 0, and runs only on days that fit both
 * the day of the month and the day of the week, where cron takes either.
 */
export function takeCron(text: string): TakenCron {
  const fields = text.trim().split(/\s+/)
  if (fields.length !== 5) return { fault: `${JSON.stringify(text)} has not the five fields of cron` }
  const [minute, hour, day, month, week] = fields.map((field) => field.toLowerCase()) as [
    string,
    string,
    string,
    string,
    string,
  ]
  if (/[a-z]/.test(`${minute}${hour}${day}`)) return { fault: `${text} has words that cron does not know` }
  const plain = [minute, hour, day, month].join(' ')
  if (week === '*') return { cron: `${plain} *` }
  if (day !== '*')
    return {
      fault: `${text} names a day of the month and of the week: the original ran on days that are both, cron runs on either`,
    }
  const days = daysOf(week)
  if (days === undefined) return { fault: `${week} are no days of the week` }
  const cron = `${plain} ${days.join(',')}`
  return /\d/.test(week)
    ? {
        cron,
        told: `day of the week ${week}: the original counts from Monday as 0, so that it ran on ${days.join(', ')}; kept so`,
      }
    : { cron }
}

/** The days that a field means, by name; undefined when it means none. */
function daysOf(field: string): readonly string[] | undefined {
  const numbers = new Set<number>()
  for (const part of field.split(',')) {
    const found = /^(\*|[a-z]{3}|\d)(?:-([a-z]{3}|\d))?(?:\/(\d+))?$/.exec(part)
    if (found === null) return undefined
    const [, first = '', last, step = '1'] = found
    const from = first === '*' ? 0 : numberOf(first)
    const to = first === '*' || (last === undefined && found[3] !== undefined) ? 6 : numberOf(last ?? first)
    if (from === undefined || to === undefined || from > to || Number(step) < 1) return undefined
    for (let day = from; day <= to; day += Number(step)) numbers.add(day)
  }
  return [...numbers].sort().map((number) => DAYS[number] ?? '')
}

function numberOf(text: string): number | undefined {
  const number = /^\d$/.test(text) ? Number(text) : DAYS.indexOf(text as (typeof DAYS)[number])
  return number >= 0 && number <= 6 ? number : undefined
}
