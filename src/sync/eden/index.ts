/** Sahana Eden's documents and what they mean here: pure, both for answering Eden and for calling it. */
export {
  type EdenArrival,
  type EdenArriving,
  type EdenKnown,
  type EdenState,
  readArrival,
  toldBefore,
} from './arrival.ts'
export {
  chosenEntries,
  type DatasetEntry,
  type DatasetNoun,
  datasetElement,
  type FollowedDataset,
  filterVariables,
  readDataset,
} from './dataset.ts'
export {
  type EdenKept,
  type EdenOutgoing,
  type EdenPlaceHint,
  edenElement,
  mciIn,
  PLACES_TABLE,
  printsOf,
  sentTime,
} from './elements.ts'
export { emptied, usesTuid } from './emptied.ts'
export {
  type Below,
  type EdenFilters,
  type EdenVariable,
  edenFilters,
  type InsideFilter,
  type TypeofWish,
  typeofWishes,
} from './filter.ts'
export { edenUuid, idOfEdenUuid, repositoryOfSite, siteOfRepository } from './identity.ts'
export { EDEN_POLICIES, type EdenPolicy, policyInOurWords } from './policy.ts'
export {
  type EdenFault,
  type EdenPrints,
  type EdenRecord,
  type EdenStranger,
  type EdenTaken,
  type EdenTuids,
  edenRecords,
  tuidsOf,
} from './records.ts'
export {
  type EdenColumn,
  type EdenComponent,
  type EdenKind,
  type EdenShape,
  type EdenShapes,
  edenShapes,
  type ShapeChoice,
  type ShapeSource,
  shapeOfResource,
} from './shape.ts'
export { edenTimeOf, readEdenTime, writeEdenTime } from './time.ts'
export { type EdenPlaces, type EdenTrail, followTrail, noteAnswer, placesOf } from './trail.ts'
