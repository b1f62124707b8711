import type { Scenario } from '../contest.ts'
import { cascade, keyChange, selfReference, swappedUnique, truncate, uniqueClash } from './keys.ts'
import { deleteAgainstUpdate, deleteThenCreate, duplicates, missingParent, restored, ring } from './order.ts'
import { columnAdded, columnDropped, largeValue, narrower, refusingTrigger } from './skew.ts'
import { clockBack, killAtRandom, lateCommit, oneSecond } from './time.ts'
import { nulls, numbers, times, unicode } from './values.ts'

/** Ten faults and fifteen situations, in the order of the table. */
export const SCENARIOS: readonly Scenario[] = [
  killAtRandom,
  duplicates,
  clockBack,
  oneSecond,
  lateCommit,
  deleteAgainstUpdate,
  deleteThenCreate,
  ring,
  missingParent,
  restored,
  uniqueClash,
  keyChange,
  swappedUnique,
  truncate,
  largeValue,
  columnAdded,
  columnDropped,
  narrower,
  refusingTrigger,
  nulls,
  unicode,
  numbers,
  times,
  selfReference,
  cascade,
]
