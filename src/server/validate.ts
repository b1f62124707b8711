import { Ajv } from 'ajv'
import type { FastifyInstance } from 'fastify'

const FORMATS = {
  'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)$/,
  uuid: /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i,
  uri: (text: string) => URL.canParse(text),
}

/**
 * Checks requests strictly: every fault at once, nothing taken away and nothing turned into another type, except in a query, where everything is
 * text. Answers are written as they are: a serializer that follows a schema drops what the schema does not name.
 */
export function validateStrictly(app: FastifyInstance): void {
  const options = {
    allErrors: true,
    removeAdditional: false,
    useDefaults: true,
    strict: false,
    formats: FORMATS,
  } as const
  const exact = new Ajv({ ...options, coerceTypes: false })
  const lenient = new Ajv({ ...options, coerceTypes: true })
  app.setValidatorCompiler(({ schema, httpPart }) =>
    (httpPart === 'querystring' ? lenient : exact).compile(schema as object),
  )
  app.setSerializerCompiler(() => (body) => JSON.stringify(body))
}
