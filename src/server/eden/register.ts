import type { FastifyReply, FastifyRequest } from 'fastify'
import { appendLog, registerEden } from '../../store/index.ts'
import { isJsonObject, parseJson, repositoryOfSite, SynclineError, siteOfRepository } from '../../sync/index.ts'
import { peerOf } from '../access.ts'
import type { ServerDeps } from '../deps.ts'
import { answerEden, failed } from './words.ts'

const BODY_BYTES_MAX = 65_536

/** Bytes of a small body, whatever its Content-Type says. Errors: SYNC_REQUEST_TOO_LARGE. */
async function smallBody(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > BODY_BYTES_MAX)
      throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `a registration has at most ${BODY_BYTES_MAX} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/**
 * A site of Eden tells who it is, and hears who we are: `sender` is stored there as our name. Answers as Eden does, a registration without a
 * UUID with 200 and a failure in the body.
 */
export async function register(deps: ServerDeps, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const peer = peerOf(request)
  const sender = repositoryOfSite((await deps.self()).uuid)
  let told: unknown
  try {
    told = parseJson((await smallBody(request.body as AsyncIterable<Buffer>)).toString())
  } catch (error) {
    if (error instanceof SynclineError) throw error
    return failed(reply, 400, `Invalid parameters: ${(error as Error).message}`)
  }
  const { uuid: repository, name = '', apitype = 'eden' } = isJsonObject(told) ? told : {}
  if (typeof repository !== 'string' || repository === '') {
    const message = 'No repository identifier specified'
    return answerEden(reply, 200, { status: 'failed', statuscode: '400', message, sender })
  }
  const uuid = siteOfRepository(repository)
  if (uuid === undefined)
    return failed(reply, 400, `the repository identifier ${JSON.stringify(repository.slice(0, 80))} holds no UUID`)
  const registration = { repository, uuid, name: String(name).slice(0, 200), apitype: String(apitype).slice(0, 40) }
  const done = await registerEden(deps.store.db, peer.id, registration)
  const message = done === 'new' ? 'Registration successful' : 'Registration update successful'
  await appendLog(deps.store.db, {
    ...{ peer: { id: peer.id, name: peer.name }, resource: null, mode: 'register', direction: 'incoming' },
    ...{ action: 'none', result: 'success', remote: false, message },
  })
  return answerEden(reply, 200, { status: 'success', statuscode: '200', message, sender })
}
