import { Type } from 'typebox'
import { listAgreements } from '../../store/index.ts'
import { VERDICTS } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import { answer, closed, count, flag, nullable, peerRef, resourceName, text, time, words } from '../schemas.ts'

const agreement = closed(
  {
    peer: text('Name.'),
    resource: resourceName,
    verdict: words(VERDICTS, {
      description:
        'What the last comparison found. waiting: both differ, and what waits explains it; different: nothing explains it; unknown: it could not be found out.',
    }),
    reason: nullable(Type.String(), { description: 'Why they differ, or could not be compared.' }),
    comparedAt: time('When both were last compared.'),
    records: nullable(Type.Integer(), { description: 'Living records here that were compared then.' }),
    differing: nullable(Type.Integer(), { description: 'How many are known to differ.' }),
    agreedAt: nullable(time('When both were last found equal.')),
    agreedRecords: nullable(Type.Integer(), { description: 'Living records then.' }),
    changedSince: flag('Something was written here since the last comparison.'),
  },
  { title: 'Agreement', description: 'What is known of whether this site and a peer hold the same of a resource.' },
)

/** /api/v1/agreements: what proves that sites are equal. */
export const agreementRoutes =
  ({ store }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listAgreements',
      tags: ['peers'],
      summary: 'List what is proved',
      description:
        'For each peer and resource, when both sites were last compared and last found equal, with how many records.',
      querystring: closed({ peer: Type.Optional(peerRef) }),
      response: {
        200: answer(
          closed(
            { total: count('Of the list.'), items: Type.Array(agreement) },
            { title: 'AgreementList', description: 'What is proved.' },
          ),
        ),
      },
    }
    app.get('/agreements', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { peer } = request.query
      const all = await listAgreements(store.db)
      const items = peer === undefined ? all : all.filter((each) => each.peer === peer)
      return { total: items.length, items }
    })
  }
