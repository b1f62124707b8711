import { createHmac } from 'node:crypto'
import { request } from 'undici'
import { type AlarmNotice, noticeId, type Sender } from '../notice.ts'

export type WebhookSettings = { readonly url: string; readonly secret: string }

/** Whoever is called has this long to answer. */
const TIMEOUT_MS = 20_000
const ANSWER_CHARACTERS_MAX = 300

/**
 * Posts alarms as JSON, signed as the Standard Webhooks convention has it: `webhook-id` names the message, whenever it is sent again, `webhook-timestamp`
 * is the second of sending, and `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. Throws for any answer but 2xx;
 * redirects are not followed.
 */
export function createWebhook(
  { url, secret }: WebhookSettings,
  now: () => number = Date.now,
): (sender: Sender, notice: AlarmNotice) => Promise<void> {
  const post = createSignedPost(secret, now)
  return (sender, notice) => post(url, noticeId(sender, notice), bodyOf(sender, notice))
}

/** The same for any body. `id` names the message whenever it is sent again. */
export function createSignedPost(
  secret: string,
  now: () => number = Date.now,
): (url: string, id: string, content: object) => Promise<void> {
  const key = keyOf(secret)
  return async (url, id, content) => {
    const timestamp = String(Math.floor(now() / 1000))
    const body = JSON.stringify(content)
    const { statusCode, body: answer } = await request(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'user-agent': 'syncline',
        'webhook-id': id,
        'webhook-timestamp': timestamp,
        'webhook-signature': `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`,
      },
      body,
      headersTimeout: TIMEOUT_MS,
      bodyTimeout: TIMEOUT_MS,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
    if (statusCode >= 200 && statusCode < 300) return answer.dump()
    const said = (await answer.text().catch(() => '')).slice(0, ANSWER_CHARACTERS_MAX)
    throw new Error(`the webhook answered ${statusCode}${said === '' ? '' : `: ${said}`}`)
  }
}

/** `whsec_` and base64 is the secret as such services give it out; any other text counts as it is. */
function keyOf(secret: string): Buffer {
  return secret.startsWith('whsec_') ? Buffer.from(secret.slice('whsec_'.length), 'base64') : Buffer.from(secret)
}

function bodyOf({ uuid, name, url }: Sender, { moment, alarm }: AlarmNotice) {
  return {
    type: moment === 'begin' ? 'alarm.begun' : 'alarm.ended',
    timestamp: moment === 'begin' ? alarm.since : alarm.ended,
    data: { site: { uuid, name, url }, alarm },
  }
}
