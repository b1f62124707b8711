import type { ValidateFunction } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { Test } from 'tap'

type Operation = {
  readonly operationId: string
  readonly responses: Record<string, { $ref?: string; content?: Record<string, unknown> }>
}
type Document = { readonly paths: Record<string, Record<string, Operation>> }
type Found = { readonly id: string; readonly method: string; readonly path: string; readonly operation: Operation }

export type Answered = { readonly status: number; readonly type: string; readonly body: string }

/** Holds answers against the OpenAPI document, and remembers which operations were asked. */
export type Contract = {
  readonly called: Set<string>
  readonly operations: readonly string[]
  /** Fails the test when the document does not know the operation, the status, the media type or the shape of the answer. */
  readonly check: (t: Test, method: string, url: string, answer: Answered) => void
}

export function contractOf(source: unknown): Contract {
  const document = source as Document
  const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false })
  ajv.addSchema({ $id: 'openapi', ...(source as object) })
  const validators = new Map<string, ValidateFunction>()
  const validator = (pointer: string) => {
    const known = validators.get(pointer) ?? ajv.compile({ $ref: `openapi#${pointer}` })
    validators.set(pointer, known)
    return known
  }
  const all = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(
      ([method, operation]): Found => ({ id: operation.operationId, method: method.toUpperCase(), path, operation }),
    ),
  )
  const called = new Set<string>()

  return {
    called,
    operations: all.map(({ id }) => id),
    check: (t, method, url, answer) => {
      const found = find(all, method, url)
      const what = `${method} ${url.slice(0, 80)} → ${answer.status}`
      if (found === undefined && url.startsWith('/docs')) return
      if (found === undefined)
        return void t.ok([404, 429].includes(answer.status), `${what}: the document does not know it`)
      called.add(found.id)
      const { responses } = found.operation
      const status = [String(answer.status), `${Math.floor(answer.status / 100)}XX`].find((key) => key in responses)
      if (status === undefined) return void t.fail(`${what}: the document has no such status`)
      const place = `/paths/${escaped(found.path)}/${method.toLowerCase()}/responses/${status}`
      const { $ref, content } = responses[status] ?? {}
      const media = $ref === undefined ? content : { 'application/problem+json': {} }
      if (media === undefined) return void t.equal(answer.body, '', `${what}: no body is announced`)
      const type = answer.type.split(';')[0] ?? ''
      if (!(type in media)) return void t.fail(`${what}: the document has no ${type} there`)
      if (!/json$/.test(type) || type.endsWith('ndjson')) return
      const base = $ref === undefined ? place : $ref.slice(1)
      const validate = validator(`${base}/content/${escaped(type)}/schema`)
      if (!validate(JSON.parse(answer.body)))
        t.fail(`${what}: ${ajv.errorsText(validate.errors)}: ${answer.body.slice(0, 500)}`)
    },
  }
}

/** Fixed paths go before those with parameters, as in the router. */
function find(all: readonly Found[], method: string, url: string): Found | undefined {
  const path = url.split('?')[0] ?? ''
  const fits = (each: Found) => new RegExp(`^${each.path.replace(/\{\w+\}/g, '[^/]+')}$`).test(path)
  return all
    .filter((each) => each.method === method && fits(each))
    .sort((a, b) => a.path.split('{').length - b.path.split('{').length)[0]
}

function escaped(part: string): string {
  return encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))
}
