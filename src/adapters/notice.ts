/** What is told of an alarm, as the adapters need it: an episode of the stall detector, at its begin or its end. */
export type AlarmNotice = {
  readonly moment: 'begin' | 'end'
  readonly alarm: {
    readonly id: string
    readonly code: string
    readonly level: string
    /** Empty where the site itself is meant. */
    readonly peer: string
    readonly resource: string
    readonly text: string
    readonly mend: string
    readonly since: string
    readonly ended: string | null
  }
}

/** Who tells it. */
export type Sender = { readonly uuid: string; readonly name: string; readonly url: string }

/** Names a notice for whoever gets it twice: the answer to the first one may have been lost. */
export function noticeId({ uuid }: Sender, { alarm, moment }: AlarmNotice): string {
  return `${uuid}.alarm.${alarm.id}.${moment}`
}
