export { createMailer, type MailSettings } from './mail/mail.ts'
export type { AlarmNotice, Sender } from './notice.ts'
export { type ProcessEnd, type ProcessRequest, runProcess } from './process/process.ts'
export { createWebhook, type WebhookSettings } from './webhook/webhook.ts'
