import { Type } from 'typebox'
import { digestOf, digestRecords, grantedDigestScope } from '../../store/index.ts'
import { peerOf } from '../access.ts'
import type { ExchangeDeps, Routes } from '../exchange.ts'
import { answer, closed, filterText, nullable, resourceName } from '../schemas.ts'

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

/** GET /sync/v1/digests/{resource}: what proves two sites equal, and finds where they are not. */
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
