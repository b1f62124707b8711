/** The language of filters, see docs/guides/filters.md. Its translation to SQL is src/store/filter-sql.ts. */
export { evaluate, type FilterLookup, type FilterRecord, filterMatcher } from './filter-evaluate.ts'
export { FILTER_LIMITS, parseFilter } from './filter-parse.ts'
export {
  type FilterColumn,
  type FilterReference,
  type ResolvedColumn,
  type ResolvedColumns,
  resolveFilter,
} from './filter-resolve.ts'
export {
  type FilterLiteral,
  type FilterOperand,
  type FilterOperator,
  type FilterTerm,
  type FilterTree,
  filterColumns,
  formatFilter,
  formatOperand,
} from './filter-tree.ts'
export { bindLiteral, elementKind, type ValueKind } from './filter-value.ts'
