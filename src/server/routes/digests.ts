import { Type } from 'typebox'
import { answerComparison, digestOf, digestRecords, grantedDigestScope } from '../../store/index.ts'
import { VERDICTS } from '../../sync/index.ts'
import { peerOf } from '../access.ts'
import type { ExchangeDeps, Routes } from '../exchange.ts'
import { answer, closed, count, filterText, flag, mode, nullable, resourceName, words } from '../schemas.ts'

/** Records of a range that are listed one by one. */
const RECORDS_MAX = 1_000

const query = closed({
  from: Type.Optional(
    Type.String({ maxLength: 640, description: 'Record id behind which the range begins; absent for the first.' }),
  ),
  to: Type.Optional(Type.String({ maxLength: 640, description: 'Last record id of the range; absent for the last.' })),
  buckets: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 1024, default: 1, description: 'Pieces to divide the range into.' }),
  ),
  filter: Type.Optional(filterText),
  records: Type.Optional(
    Type.Boolean({ default: false, description: `Lists the records of the range one by one, at most ${RECORDS_MAX}.` }),
  ),
})

const bound = nullable(Type.String(), { description: 'Record id; null where the range is open.' })
const sum = Type.String({ pattern: '^-?[0-9]+$', description: 'Sum of the hashes in decimal digits.' })
const digests = closed(
  {
    resource: resourceName,
    ranges: Type.Optional(
      Type.Array(
        closed(
          { from: bound, to: bound, count: Type.Integer({ minimum: 0 }), sum },
          { title: 'Digest', description: 'Digest of the records behind `from` up to and with `to`.' },
        ),
      ),
    ),
    records: Type.Optional(
      Type.Array(
        closed({ id: Type.String(), hash: sum }, { title: 'RecordDigest', description: 'Digest of one record.' }),
      ),
    ),
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

/** /sync/v1/digests/{resource}: what proves two sites equal, and finds where they are not. */
export const digestRoutes =
  ({ store }: ExchangeDeps): Routes =>
  async (app) => {
    const schema = {
      operationId: 'compareDigests',
      tags: ['sync'],
      summary: 'Compare by digests',
      description:
        'Counts and sums of hashes over ranges of record ids, in the order of their bytes. A hash covers id, version and deletion. With a filter only living records count.',
      params: closed({ resource: resourceName }),
      querystring: query,
      response: { 200: answer(digests) },
    }
    const post = {
      operationId: 'compareTotals',
      tags: ['sync'],
      summary: 'Compare by one total',
      description:
        'The caller tells how many living records it holds and the sum of their hashes; the answer tells the same of this site. Both note the result for their status.',
      params: closed({ resource: resourceName }),
      body: closed({
        ...total,
        filter: Type.Optional(filterText),
        mode: Type.Optional(mode),
        waiting: Type.Optional(waiting),
      }),
      response: { 200: answer(comparison) },
    }
    app.post('/digests/:resource', { schema: post, config: { access: 'peer' } }, async (request) =>
      answerComparison(store, peerOf(request), { ...request.body, ...request.params }),
    )

    app.get('/digests/:resource', { schema, config: { access: 'peer' } }, async (request) => {
      const { resource } = request.params
      const { from = null, to = null, buckets = 1, filter, records = false } = request.query
      const scope = await grantedDigestScope(store, peerOf(request), { resource, filter })
      const range = { from, to }
      return records
        ? { resource, records: await digestRecords(store.db, scope, range, RECORDS_MAX) }
        : { resource, ranges: await digestOf(store.db, scope, range, buckets) }
    })
  }
