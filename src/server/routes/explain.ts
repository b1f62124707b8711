import { Type } from 'typebox'
import { findPeer, findResource, gatherReach, readLife } from '../../store/index.ts'
import { explainReach, REASONS } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import {
  answer,
  anyJson,
  closed,
  count,
  flag,
  nullable,
  peerRef,
  recordId,
  resourceName,
  text,
  time,
  words,
} from '../schemas.ts'

const runId = (description: string) => nullable(Type.String(), { description })
const values = (description: string) => Type.Record(Type.String(), anyJson('Value'), { description })

const entry = closed(
  {
    kind: words(['present', 'past', 'lost', 'discarded'], {
      description: 'As it is now; as it was here; what lost a conflict here; what a person gave up while it waited.',
    }),
    site: text('Site where the version was made.'),
    version: closed({ origin: Type.String(), clock: Type.Integer() }),
    writtenAt: time('When it was made, by the clock of its site.'),
    via: nullable(Type.String(), { description: 'Peer that it came by; null when it was made or settled here.' }),
    runId: runId(
      'Run of this site that brought it; null for the application, for writes by hand and for what a peer pushed.',
    ),
    deleted: flag('It was a deletion.'),
    data: nullable(values('Values by column, references as record ids.')),
    changed: Type.Record(
      Type.String(),
      closed(
        { was: anyJson('Before.'), is: anyJson('In this version.') },
        { title: 'ChangedField', description: 'A field that differs.' },
      ),
      { description: 'Fields that differ from the version before it that is known here; for a loser, from what won.' },
    ),
    ended: nullable(
      closed(
        {
          at: time('When.'),
          how: text('replaced, deleted, left, lost a conflict, discarded.'),
          runId: runId('Run that did it.'),
          rule: nullable(Type.String(), { description: 'Policy that decided, where the versions were concurrent.' }),
        },
        { title: 'VersionEnd', description: 'How a version ended here.' },
      ),
    ),
  },
  { title: 'LifeEntry', description: 'A version of a record that was here, or that lost here.' },
)
const reach = closed(
  {
    name: text('Name of the peer.'),
    has: words(['same', 'other', 'none', 'acknowledged', 'unknown'], {
      description: 'Whether it has the version that is here; acknowledged: it said so of everything up to there.',
    }),
    proof: text('How that is known.'),
    reasons: Type.Array(
      closed(
        {
          reason: words(REASONS),
          way: words(['there', 'here'], { description: 'To the peer, or from it to here.' }),
          fact: text('What shows it.'),
        },
        { title: 'Reason', description: 'Why two sites do not hold the same of a record.' },
      ),
      { description: 'Everything that stands in the way.' },
    ),
  },
  { title: 'Reach', description: 'What a peer has of a record, and why not.' },
)
const explanation = closed(
  {
    resource: resourceName,
    id: recordId,
    state: words(['here', 'deleted', 'purged', 'unknown'], {
      description: 'purged: it was deleted, and its tombstone as well; unknown: it does not live here, or never has.',
    }),
    life: Type.Array(entry, { description: 'Oldest first; at most the last hundred and the present one.' }),
    truncated: flag('There is more than is shown.'),
    quarantine: Type.Array(
      closed(
        {
          peer: text('Peer that it came from.'),
          code: text('Code of the reason.'),
          reason: text('In words for a person.'),
          waitsFor: nullable(Type.String(), { description: 'Record that it waits for, as resource/id.' }),
          attempts: count('How often it was tried.'),
          firstAt: time('Since when it waits.'),
          retryAt: nullable(time('When it is tried again.')),
        },
        { title: 'LifeQuarantine', description: 'A version of the record that waits in quarantine here.' },
      ),
    ),
    conflicts: Type.Array(
      closed(
        {
          id: Type.String(),
          peer: nullable(Type.String()),
          openedAt: time('When it was met.'),
          resolvedAt: nullable(time('When it was settled.')),
          resolvedBy: nullable(Type.String()),
          resolution: nullable(Type.String()),
        },
        { title: 'LifeConflict', description: 'A conflict of the record that waits for a person, or waited.' },
      ),
    ),
    parked: nullable(values('Fields that the table has no column for.')),
    pending: Type.Array(
      closed(
        { column: Type.String(), resource: Type.String(), id: Type.String() },
        { title: 'PendingReference', description: 'A reference that waits for its target.' },
      ),
    ),
    peer: nullable(reach, { description: 'Null when no peer was asked about.' }),
  },
  { title: 'Explanation', description: 'The life of a record here, and what a peer has of it.' },
)

/** GET /api/v1/explain: why a value is here, and why a record is not there. */
export const explainRoutes =
  ({ store, actions }: ServerDeps): Routes =>
  async (app) => {
    const schema = {
      operationId: 'explainRecord',
      tags: ['records'],
      summary: 'Explain a record',
      description:
        'Each version of a record that is known here with its origin, path, run and rule. With a peer, whether it has the version that is here, and why not, each reason with the fact that shows it; the peer is asked just then.',
      querystring: closed({ resource: resourceName, id: recordId, peer: Type.Optional(peerRef) }),
      response: { 200: answer(explanation) },
    }
    app.get('/explain', { schema, config: { access: 'viewer' } }, async (request) => {
      const { resource: name, id, peer: ref } = request.query
      const resource = await findResource(store.db, name)
      const life = await readLife(store.db, resource, id)
      if (ref === undefined) return { ...life, peer: null }
      const peer = await findPeer(store.db, ref)
      const asked = await actions.askRecord({ peer, resource, id })
      const facts = await gatherReach(store, peer, resource, id)
      return { ...life, peer: { name: peer.name, ...explainReach({ ...facts, asked }) } }
    })
  }
