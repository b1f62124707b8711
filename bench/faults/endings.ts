import type { Owner } from '../../test/support/postgres.ts'

/** A place to put the ends of things outside a test; `end` does them, the last one first. */
export function endAll(): Owner & { readonly end: () => Promise<void> } {
  const handlers: (() => Promise<void>)[] = []
  return {
    teardown: (handler) => void handlers.push(handler),
    end: async () => {
      for (const handler of handlers.splice(0).reverse()) await handler()
    },
  }
}
