import { createTransport } from 'nodemailer'
import { type AlarmNotice, noticeId, type Sender } from '../notice.ts'

export type MailSettings = {
  /** smtp:// or smtps://, with user and password where the server asks for them. */
  readonly url: string
  readonly from: string
  readonly to: readonly string[]
}

/** A mail server that says nothing for so long is given up for this time. */
const TIMEOUT_MS = 20_000

/**
 * Sends alarms as mail. Each mail has the same Message-ID whenever it is sent again, and the end of an alarm answers its begin. Throws what the
 * server said.
 */
export function createMailer(settings: MailSettings): (sender: Sender, notice: AlarmNotice) => Promise<void> {
  const { from, to } = settings
  const transport = transportOf(settings.url)
  return async (sender, notice) => {
    const { moment } = notice
    const begin = idOf(sender, { ...notice, moment: 'begin' })
    await transport.sendMail({
      from: { name: `Syncline ${sender.name}`, address: from },
      to: [...to],
      subject: subjectOf(sender, notice),
      text: textOf(sender, notice),
      messageId: idOf(sender, notice),
      ...(moment === 'end' && { inReplyTo: begin, references: [begin] }),
      // RFC 3834: nobody's absence is to be answered to a machine.
      headers: { 'Auto-Submitted': 'auto-generated' },
    })
  }
}

/** A mail of any content. `id` names it whenever it is sent again. */
export type MailMessage = {
  readonly id: string
  readonly to: readonly string[]
  readonly subject: string
  readonly text: string
  readonly html: string | undefined
}

/** Sends mails as `senderName`. Throws what the server said. */
export function createMailSender(
  settings: Pick<MailSettings, 'url' | 'from'>,
): (senderName: string, message: MailMessage) => Promise<void> {
  const transport = transportOf(settings.url)
  return async (senderName, { id, to, html, ...content }) => {
    await transport.sendMail({
      from: { name: `Syncline ${senderName}`, address: settings.from },
      to: [...to],
      ...content,
      ...(html !== undefined && { html }),
      messageId: `<${id}@syncline.invalid>`,
      headers: { 'Auto-Submitted': 'auto-generated' },
    })
  }
}

function transportOf(url: string) {
  const timeouts = { connectionTimeout: TIMEOUT_MS, greetingTimeout: TIMEOUT_MS, socketTimeout: TIMEOUT_MS }
  return createTransport({ url, ...timeouts, disableFileAccess: true, disableUrlAccess: true })
}

function idOf(sender: Sender, notice: AlarmNotice): string {
  return `<${noticeId(sender, notice)}@syncline.invalid>`
}

function subjectOf({ name }: Sender, { moment, alarm }: AlarmNotice): string {
  const about = [alarm.peer, alarm.resource].filter((part) => part !== '').join(' ')
  const what = moment === 'begin' ? alarm.level : 'over'
  return `[Syncline ${name}] ${what}: ${alarm.code}${about === '' ? '' : ` (${about})`}`.slice(0, 200)
}

function textOf({ name, url, uuid }: Sender, { moment, alarm }: AlarmNotice): string {
  const told =
    moment === 'begin'
      ? [alarm.text, '', `What to do: ${alarm.mend}`, '', `Since ${alarm.since}.`]
      : [`No longer so, since ${alarm.ended}:`, '', alarm.text, '', `It had begun at ${alarm.since}.`]
  return [
    ...told,
    '',
    `Site ${name}, ${url === '' ? uuid : url}. You are told once when an alarm begins and once when it ends.`,
    '',
  ].join('\n')
}
