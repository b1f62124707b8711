import type { Fault, StepContext, StepEnd, StepHandler } from '../step.ts'
import { escapeHtml, parseTemplate, render, type TemplateValue } from './template.ts'

/** `notify`: tells people by mail or programs by a signed webhook how the run went. */

type Notify = {
  readonly when?: 'always' | 'failure' | 'success'
  readonly mail?: {
    readonly to?: readonly string[]
    readonly subject?: string
    readonly text?: string
    readonly html?: string
  }
  readonly webhook?: { readonly url?: string; readonly data?: Readonly<Record<string, string>> }
}

/** The ways out that this site is set to; each throws what went wrong. `id` names the message whenever it is sent again. */
export type NotifyDeps = {
  readonly mail?:
    | ((message: {
        readonly id: string
        readonly to: readonly string[] | undefined
        readonly subject: string
        readonly text: string
        readonly html: string | undefined
      }) => Promise<void>)
    | undefined
  readonly webhook?:
    | ((message: {
        readonly id: string
        readonly url: string | undefined
        readonly type: string
        readonly timestamp: string
        readonly data: Readonly<Record<string, unknown>>
      }) => Promise<void>)
    | undefined
}

const SUBJECT = '[Syncline {{site}}] job {{job}}: {{result}}'
const TEXT = `Job {{job}} on {{site}} ({{host}}), run {{run}}: {{result}}.

{{#steps}}  {{name}}: {{result}}{{#message}}, {{message}}{{/message}}
{{/steps}}`
const SUBJECT_MAX = 200

const template = (description: string, maxLength: number) => ({
  type: 'string',
  minLength: 1,
  maxLength,
  description: `${description} Places for values: job, run, result, failed, site, host, time, steps (name, result, message, counts).`,
})

const schema = {
  type: 'object',
  description: 'Tells somebody. Usually among the steps that are always done.',
  minProperties: 1,
  properties: {
    when: {
      type: 'string',
      enum: ['always', 'failure', 'success'],
      default: 'always',
      description: 'After which steps: after all, only after a failed one, or only when none failed.',
    },
    mail: {
      type: 'object',
      description: 'A mail, by the mail server of the settings.',
      properties: {
        to: {
          type: 'array',
          items: { type: 'string', maxLength: 254, pattern: '^[^\\s@<>",;:\\\\()\\[\\]]{1,64}@[A-Za-z0-9.-]+$' },
          minItems: 1,
          maxItems: 50,
          description: 'To whom; those of the settings when absent.',
        },
        subject: template('Subject.', 500),
        text: template('Text.', 100_000),
        html: template('The same as HTML; values are escaped.', 100_000),
      },
      additionalProperties: false,
    },
    webhook: {
      type: 'object',
      description: 'A signed POST, with the secret of the settings.',
      properties: {
        url: {
          type: 'string',
          pattern: '^https?://[^\\s]+$',
          maxLength: 2000,
          description: 'That of the settings when absent.',
        },
        data: {
          type: 'object',
          additionalProperties: template('A member of `data`.', 10_000),
          maxProperties: 50,
          description: 'Further members of its data.',
        },
      },
      additionalProperties: false,
    },
  },
  additionalProperties: false,
}

export function notifyStep(deps: NotifyDeps): StepHandler<Notify> {
  return {
    kind: 'notify',
    schema,
    check: (settings) => check(settings, deps),
    // At least once: a message that is sent again has the same id.
    repeatable: () => true,
    plan: async ({ mail, webhook, when = 'always' }) => ({
      summary: `would tell ${[mail && `by mail ${mail.to?.join(', ') ?? 'those of the settings'}`, webhook && `the webhook ${webhook.url ?? 'of the settings'}`].filter(Boolean).join(' and ')} (${when})`,
    }),
    run: async ({ mail, webhook, when = 'always' }, context) => {
      const values = valuesOf(context)
      if (when !== 'always' && values.failed !== (when === 'failure'))
        return { result: 'success', message: `nothing to tell: ${values.result}` }
      const id = `${context.site.uuid}.job.${context.runId}.${context.step}`
      const told: string[] = []
      if (mail !== undefined) {
        const subject = render(mail.subject ?? SUBJECT, values)
          .replace(/\s+/g, ' ')
          .slice(0, SUBJECT_MAX)
        const html = mail.html === undefined ? undefined : render(mail.html, values, escapeHtml)
        await deps.mail?.({ id, to: mail.to, subject, text: render(mail.text ?? TEXT, values), html })
        told.push('by mail')
      }
      if (webhook !== undefined) {
        const extra = Object.entries(webhook.data ?? {}).map(([key, text]) => [key, render(text, values)])
        // Who tells it is said beside, in full.
        const { failed: _, site: __, ...data } = values
        const type = values.failed ? 'job.failed' : 'job.ended'
        await deps.webhook?.({
          id,
          url: webhook.url,
          type,
          timestamp: values.time,
          data: { ...data, ...Object.fromEntries(extra) },
        })
        told.push('by webhook')
      }
      return { result: 'success', message: `told ${told.join(' and ')}: ${values.result}` }
    },
  }
}

function check({ mail, webhook }: Notify, deps: NotifyDeps): readonly Fault[] {
  const faults: Fault[] = []
  if (mail === undefined && webhook === undefined) faults.push({ path: '', message: 'needs mail or webhook' })
  if (mail !== undefined && deps.mail === undefined)
    faults.push({ path: '/mail', message: 'this site has no mail server: set smtpUrl and mailFrom' })
  if (webhook !== undefined && deps.webhook === undefined)
    faults.push({ path: '/webhook', message: 'this site has no secret to sign with: set webhookUrl and webhookSecret' })
  const texts: [string, string | undefined][] = [
    ['/mail/subject', mail?.subject],
    ['/mail/text', mail?.text],
    ['/mail/html', mail?.html],
    ...Object.entries(webhook?.data ?? {}).map(([key, text]): [string, string] => [`/webhook/data/${key}`, text]),
  ]
  for (const [path, text] of texts) {
    try {
      parseTemplate(text ?? '')
    } catch (error) {
      faults.push({ path, message: (error as Error).message })
    }
  }
  return faults
}

function valuesOf({ job, runId, site, before, now }: StepContext) {
  const ends = Object.entries(before) as [string, StepEnd][]
  const failed = ends.some(([, { result }]) => result === 'error')
  const warned = ends.some(([, { result }]) => result === 'warning')
  const result = failed ? 'failure' : warned ? 'warning' : 'success'
  const steps = ends.map(([name, end]): TemplateValue => ({ name, ...end }))
  return {
    job,
    run: runId,
    site: site.name,
    host: site.host,
    result,
    failed,
    time: new Date(now()).toISOString(),
    steps,
  }
}
