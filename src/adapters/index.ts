export { createMailer, type MailSettings } from './mail/mail.ts'
export type { AlarmNotice, Sender } from './notice.ts'
export { createWebhook, type WebhookSettings } from './webhook/webhook.ts'
