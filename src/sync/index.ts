export * from './errors.ts'
export * from './record.ts'
export * from './filter.ts'
