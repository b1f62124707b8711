import { Type } from 'typebox'
import {
  type ExchangeLink,
  findResource,
  previewReceive,
  type Store,
  weighReceived,
  weighServed,
} from '../store/index.ts'
import type { BatchReport, LineBatch } from '../sync/index.ts'
import type { ServerLimits } from './deps.ts'
import { batchReport, closed, columnsOf, count, nullable, recordId, text, words } from './schemas.ts'

/** What a peer may ask with a pull besides the batch. */
export const weighQuery = {
  heads: Type.Optional(
    Type.Boolean({
      description: 'Versions without values: enough to tell what the changes would do. Nothing is taken note of.',
    }),
  ),
  preview: Type.Optional(
    Type.Boolean({ description: 'Only looks: what the peer holds is not taken note of, and the log has no entry.' }),
  ),
  weigh: Type.Optional(
    Type.Boolean({
      description:
        'Also tells in headers how much is due in all, whether the resource is empty, and how the canary is.',
    }),
  ),
  canary: Type.Optional(recordId),
}

/** Headers of an answer that was asked to weigh. */
export const WEIGHT_HEADERS = {
  'Syncline-Due': 'Changes that follow in all at most, such as `puts=20000, deletes=12`; when more follows.',
  'Syncline-Empty': '`true` when the resource has no record here.',
  'Syncline-Canary': '`living`, `deleted` or `missing`; when a canary was named.',
}

export type Weighing = {
  readonly resource: string
  readonly after?: string | undefined
  readonly filter?: string | undefined
  readonly columns?: string | undefined
  readonly canary?: string | undefined
}

/** What is due to the peer beyond the batch, as headers; `more` tells whether anything is. */
export async function weightHeaders(
  store: Store,
  link: ExchangeLink,
  asked: Weighing,
  more: boolean | Promise<boolean>,
): Promise<Readonly<Record<string, string>>> {
  const resource = await findResource(store.db, asked.resource)
  const request = { ...asked, columns: columnsOf(asked.columns), more }
  const { due, empty, canary } = await weighServed(store, link, resource, request)
  return {
    'syncline-empty': String(empty),
    ...(due !== null && { 'syncline-due': `puts=${due.puts}, deletes=${due.deletes}` }),
    ...(canary !== null && { 'syncline-canary': canary }),
  }
}

/** Deletions that a peer announces with a push: `Syncline-Due: deletes=500`. */
export function announcedDeletes(header: string | string[] | undefined): number {
  const [, digits] = /(?:^|[ ,])deletes=(\d{1,15})(?:$|[ ,])/.exec(typeof header === 'string' ? header : '') ?? []
  return Number(digits ?? 0)
}

export const pushPreviewQuery = Type.Optional(
  words(['values', 'heads'], {
    description:
      'Applies nothing, but tells what would become of each record: by the same code, rolled back (values), or by versions alone (heads, without data).',
  }),
)

const previewed = closed(
  {
    inserts: count('Records that would be new here.'),
    updates: count('Records here that would get other values.'),
    deletes: count('Records here that would be deleted.'),
    living: nullable(count('Records that live here; only with heads.')),
    samples: Type.Array(Type.String(), {
      description: 'Ids of some that would be changed or deleted; only with heads.',
    }),
    braked: nullable(text('Why a brake of this site would stop it; null when none would.')),
  },
  { title: 'PushPreview', description: 'What the push would do to the records here.' },
)

/** The answer to a push; with `preview` when only that was asked for. */
export const pushReport = closed(
  { ...batchReport.properties, preview: Type.Optional(previewed) },
  { title: 'PushReport', description: 'What became of each record of a push, or would become of it.' },
)

type PushPreview = {
  readonly inserts: number
  readonly updates: number
  readonly deletes: number
  readonly living: number | null
  readonly samples: readonly string[]
  readonly braked: string | null
}

/** Answers a push that is only to be tried. */
export async function previewPush(
  store: Store,
  link: ExchangeLink,
  push: {
    readonly resource: string
    readonly batches: readonly LineBatch[]
    readonly byHand: boolean
    readonly announced: number
  },
  how: 'values' | 'heads',
  limits: ServerLimits,
): Promise<BatchReport & { readonly preview: PushPreview }> {
  if (how === 'heads') {
    const { deletes, changes, inserts, living, samples, report } = await weighReceived(store, link, push)
    return { ...report, preview: { inserts, updates: changes, deletes, living, samples, braked: null } }
  }
  const { report, writes, braked } = await previewReceive(store, link, push, limits)
  return { ...report, preview: { ...writes, living: null, samples: [], braked } }
}
