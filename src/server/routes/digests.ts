import { Type } from 'typebox'
import {
  adoptRecords,
  answerComparison,
  columnFacts,
  comparedColumns,
  deepDigest,
  deepRecords,
  digestOf,
  digestRecords,
  findGrant,
  fullDigest,
  type GrantedScope,
  grantedDigestScope,
  type KeyRange,
  mayBeRounded,
  strayRows,
} from '../../store/index.ts'
import { SynclineError, VERDICTS } from '../../sync/index.ts'
import { peerOf } from '../access.ts'
import type { ExchangeDeps, Routes } from '../exchange.ts'
import {
  answer,
  closed,
  columnList,
  columnsOf,
  count,
  filterText,
  flag,
  mode,
  nullable,
  recordId,
  resourceName,
  words,
} from '../schemas.ts'

/** Records of a range that are listed one by one. */
const RECORDS_MAX = 1_000
/** Records whose rows are read for one answer, and rows that are looked through for strays. */
const DEEP_MAX = 5_000
const STRAYS_MAX = 20_000

const place = (description: string) => Type.Optional(Type.String({ maxLength: 640, description }))
const query = closed({
  from: place('Record id behind which the range begins; absent for the first.'),
  to: place('Last record id of the range; absent for the last.'),
  buckets: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 1024, default: 1, description: 'Pieces to divide the range into.' }),
  ),
  filter: Type.Optional(filterText),
  records: Type.Optional(
    Type.Boolean({ default: false, description: `Lists the records of the range one by one, at most ${RECORDS_MAX}.` }),
  ),
  deep: Type.Optional(
    Type.Boolean({
      default: false,
      description: `Reads the rows as well: the digest of at most \`limit\` records covers their values in \`columns\`.`,
    }),
  ),
  columns: Type.Optional(columnList),
  limit: Type.Optional(
    Type.Integer({ minimum: 1, maximum: DEEP_MAX, default: DEEP_MAX, description: 'With `deep`: records to read.' }),
  ),
  strays: Type.Optional(
    Type.Boolean({
      default: false,
      description:
        'Instead of digests: rows behind the key `from` that no record stands for, a part of the table at a time.',
    }),
  ),
})

const bound = nullable(Type.String(), { description: 'Record id; null where the range is open.' })
const sum = Type.String({ pattern: '^-?[0-9]+$', description: 'Sum of the hashes in decimal digits.' })
const digests = closed(
  {
    resource: resourceName,
    filter: nullable(Type.String(), { description: 'Filter of the grant, which narrows the answer as well.' }),
    hidden: flag('The grant has a filter that the caller may not see.'),
    ranges: Type.Optional(
      Type.Array(
        closed(
          {
            from: bound,
            to: bound,
            count: Type.Integer({ minimum: 0 }),
            sum,
            rowless: Type.Optional(count('With `deep`: living records whose row is gone.')),
          },
          { title: 'Digest', description: 'Digest of the living records behind `from` up to and with `to`.' },
        ),
      ),
    ),
    records: Type.Optional(
      Type.Array(
        closed(
          {
            id: Type.String(),
            hash: Type.Optional(sum),
            version: Type.Optional(sum),
            content: Type.Optional(nullable(sum, { description: 'Hash of its values; null where the row is gone.' })),
            touched: Type.Optional(flag('The row was written after the version was.')),
          },
          { title: 'RecordDigest', description: 'Digest of one record; with `deep` version and content apart.' },
        ),
      ),
    ),
    columns: Type.Optional(
      Type.Array(closed({ name: Type.String(), type: Type.String() }), {
        description: 'With `deep`: columns that were compared, of those that were asked for.',
      }),
    ),
    strays: Type.Optional(Type.Array(Type.String(), { description: 'Keys of rows that no record stands for.' })),
    after: Type.Optional(nullable(Type.String(), { description: 'With `strays`: next `from`; null at the end.' })),
  },
  {
    title: 'Digests',
    description: 'What a resource holds, without its values: two sites with equal digests hold the same versions.',
  },
)

const total = {
  records: Type.Integer({ minimum: 0, description: 'Living records.' }),
  sum: Type.String({ pattern: '^-?[0-9]{1,60}$', description: 'Sum of their hashes in decimal digits.' }),
}
const waiting = closed(
  {
    changes: count('Changes that the other side does not have yet.'),
    quarantine: count('Records in quarantine.'),
    discarded: count('Records that a person gave up while they waited, which did not change since.'),
    conflicts: count('Conflicts for a person.'),
  },
  { title: 'WaitingSide', description: 'What waits on one side and may explain a difference; counted up to 1,000.' },
)
const comparison = closed(
  {
    resource: resourceName,
    ...total,
    verdict: words(VERDICTS, { description: 'What the two totals mean.' }),
    reason: nullable(Type.String(), { description: 'Why they differ, as far as it is known.' }),
    filter: nullable(Type.String(), { description: 'Filter of the grant, by which this site compared as well.' }),
    hidden: flag('The grant has a filter that the caller may not see.'),
    waiting,
  },
  { title: 'TotalComparison', description: 'What this site holds of a resource, as a total.' },
)
const adopted = closed(
  {
    inserted: count('Rows that no record stood for.'),
    deleted: count('Records whose row was gone.'),
    changed: count('Rows with other values than their version says.'),
  },
  { title: 'Adopted', description: 'What was done behind the triggers and is a change of this site from now on.' },
)
const someIds = (description: string) => Type.Array(recordId, { maxItems: RECORDS_MAX, description })

/** /sync/v1/digests/{resource}: what proves two sites equal, and finds where they are not. */
export const digestRoutes =
  ({ store }: ExchangeDeps): Routes =>
  async (app) => {
    const params = closed({ resource: resourceName })
    const post = {
      operationId: 'compareTotals',
      tags: ['sync'],
      summary: 'Compare by one total',
      description:
        'The caller tells how many living records it holds and the sum of their hashes; the answer tells the same of this site. Both note the result for their status.',
      params,
      body: closed({
        ...total,
        filter: Type.Optional(filterText),
        mode: Type.Optional(mode),
        waiting: Type.Optional(waiting),
        values: Type.Optional(flag('The values of all rows on both sides were compared, and are equal as well.')),
      }),
      response: { 200: answer(comparison) },
    }
    app.post('/digests/:resource', { schema: post, config: { access: 'peer' } }, async (request) =>
      answerComparison(store, peerOf(request), { ...request.body, ...request.params }),
    )

    const get = {
      operationId: 'compareDigests',
      tags: ['sync'],
      summary: 'Compare by digests',
      description:
        'Counts and sums of hashes over ranges of record ids, in the order of their bytes. A hash covers id and version of a living record; with `deep` also its values.',
      params,
      querystring: query,
      response: { 200: answer(digests) },
    }
    app.get('/digests/:resource', { schema: get, config: { access: 'peer' } }, async (request) => {
      const { resource } = request.params
      const {
        from = null,
        to = null,
        buckets = 1,
        filter,
        records = false,
        deep = false,
        strays = false,
      } = request.query
      const scope = await grantedDigestScope(store, peerOf(request), { resource, filter })
      const head = { resource, filter: scope.shown ? scope.granted : null, hidden: !scope.shown }
      const range = { from, to }
      if (strays) {
        const { ids, after } = await strayRows(store.db, scope, from, STRAYS_MAX)
        return { ...head, strays: ids, after }
      }
      if (deep) return { ...head, ...(await deepAnswer(scope, range, { ...request.query, records })) }
      if (!records && buckets === 1 && from === null && to === null) {
        const { records: count, sum } = await fullDigest(store, scope)
        return { ...head, ranges: [{ ...range, count, sum }] }
      }
      return records
        ? { ...head, records: await digestRecords(store.db, scope, range, RECORDS_MAX) }
        : { ...head, ranges: await digestOf(store.db, scope, range, buckets) }
    })

    async function deepAnswer(
      scope: GrantedScope,
      range: KeyRange,
      asked: { readonly columns?: string; readonly limit?: number; readonly records: boolean },
    ) {
      const compared = comparedColumns(scope.resource, [scope.columns, columnsOf(asked.columns)])
      const columns = columnFacts(scope.resource, compared)
      const limit = asked.limit ?? DEEP_MAX
      return asked.records
        ? { columns, records: await deepRecords(store.db, { ...scope, compared }, range, limit) }
        : { columns, ranges: [await deepDigest(store.db, { ...scope, compared }, range, limit)] }
    }

    const adopt = {
      operationId: 'adoptRecords',
      tags: ['sync'],
      summary: 'Have a look at records that differ',
      description:
        'What was done to these records behind the triggers of this site becomes a change of this site: a row without a record, a record without a row and, where it is named so, a row that was edited. Nothing else changes. For a peer that repairs a difference.',
      params,
      body: closed({
        ids: someIds('Records to look at.'),
        edited: Type.Optional(someIds('Records whose row has other values than its version says.')),
      }),
      response: { 200: answer(adopted) },
    }
    app.post('/digests/:resource/adopt', { schema: adopt, config: { access: 'peer' } }, async (request) => {
      const peer = peerOf(request)
      const scope = await grantedDigestScope(store, peer, request.params)
      if (!scope.pulls || scope.filter !== undefined || scope.columns !== null) {
        const detail = `peer "${peer.name}" may not have records of "${scope.resource.name}" looked at: it may not pull all of it`
        throw new SynclineError('SYNC_AUTH_FORBIDDEN', detail)
      }
      // That a row was edited is only the peer's word: it makes a change of a record that may be as it should be.
      if (
        (request.body.edited ?? []).length > 0 &&
        (await findGrant(store.db, peer.id, scope.resource.name, 'push')) === null
      ) {
        const detail = `peer "${peer.name}" may not have records of "${scope.resource.name}" made changes: it may not push them`
        throw new SynclineError('SYNC_AUTH_FORBIDDEN', detail)
      }
      // A column that was narrowed here rounded behind the triggers too: that is no edit for others.
      const rounded = await mayBeRounded(store.db, peer.id, scope.resource.id)
      return adoptRecords(store, scope.resource, request.body.ids, rounded ? [] : request.body.edited)
    })
  }
