import { Type } from 'typebox'
import { clearSetting, getSetting, listSettings, replaceSetting } from '../../store/index.ts'
import { type Json, SynclineError } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { changed, checkMatch, contentTag } from '../etag.ts'
import type { Routes } from '../exchange.ts'
import { answer, anyJson, closed, ifMatch, pageOf } from '../schemas.ts'

/** What the site remembers for itself has a colon in its name and is nobody's setting. */
const name = Type.String({
  pattern: '^[a-z][A-Za-z0-9.-]{0,62}$',
  description: 'Name of the setting.',
  examples: ['desk.theme'],
})
const setting = closed(
  { name, value: anyJson('Any JSON value.') },
  { title: 'Setting', description: 'A setting that is changed while the site runs.' },
)
const params = closed({ setting: name })
const isShown = (key: string) => /^[a-z][A-Za-z0-9.-]{0,62}$/.test(key)

/** /api/v1/settings: what is set while the site runs. Settings of a start are in its configuration. */
export const settingRoutes =
  ({ store }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listSettings',
      tags: ['settings'],
      summary: 'List settings',
      response: { 200: answer(pageOf(setting, 'SettingPage')) },
    }
    app.get('/settings', { schema: list, config: { access: 'viewer' } }, async () => {
      const all = [...(await listSettings(store.db))].filter(([key]) => isShown(key))
      return { items: all.map(([key, value]) => ({ name: key, value: value })), next: null }
    })

    const read = {
      operationId: 'readSetting',
      tags: ['settings'],
      summary: 'Read a setting',
      params,
      response: { 200: answer(setting) },
    }
    app.get('/settings/:setting', { schema: read, config: { access: 'viewer' } }, async (request, reply) => {
      const value = await stored(request.params.setting)
      reply.header('etag', contentTag(value))
      return { name: request.params.setting, value: value }
    })

    const put = {
      operationId: 'writeSetting',
      tags: ['settings'],
      summary: 'Set a setting',
      description: 'A setting that was never set is made with `If-Match: *`.',
      params,
      headers: ifMatch,
      body: closed({ value: anyJson('Any JSON value.') }),
      response: { 200: answer(setting) },
    }
    app.put('/settings/:setting', { schema: put, config: { access: 'administrator' } }, async (request, reply) => {
      const { setting: key } = request.params
      const value = request.body.value as Json
      const before = await getSetting(store.db, key)
      checkMatch(request.headers['if-match'], before === undefined ? '' : contentTag(before), `setting "${key}"`)
      if (!(await replaceSetting(store.db, key, value, before)))
        throw changed(`somebody else set "${key}" in the meantime`)
      reply.header('etag', contentTag(value))
      return { name: key, value: value }
    })

    const remove = {
      operationId: 'clearSetting',
      tags: ['settings'],
      summary: 'Clear a setting',
      params,
      headers: ifMatch,
      'x-answers': { 204: { description: 'Cleared.' } },
    }
    app.delete(
      '/settings/:setting',
      { schema: remove, config: { access: 'administrator' } },
      async (request, reply) => {
        const { setting: key } = request.params
        checkMatch(request.headers['if-match'], contentTag(await stored(key)), `setting "${key}"`)
        await clearSetting(store.db, key)
        return reply.code(204).send()
      },
    )

    async function stored(key: string): Promise<Json> {
      const value = await getSetting(store.db, key)
      if (value === undefined) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `setting "${key}" was never set`)
      return value
    }
  }
