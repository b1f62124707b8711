import type { Migration } from 'kysely/migration'
import * as registry from './20261121T0900-registry.ts'
import * as records from './20261121T0910-records.ts'
import * as log from './20261121T0920-log.ts'
import * as clock from './20261121T0930-clock.ts'
import * as proof from './20261122T0905-proof.ts'
import * as undo from './20261122T0915-undo.ts'
import * as brakes from './20261122T0930-brakes.ts'
import * as alarms from './20261122T0940-alarms.ts'
import * as merge from './20261122T0945-merge.ts'
import * as skew from './20261122T0950-skew.ts'
import * as core from './20261123T0900-core.ts'
import * as eden from './20261123T0910-eden.ts'
import * as edenServed from './20261123T0915-eden-served.ts'
import * as jobs from './20261123T0920-jobs.ts'
import * as transfer from './20261123T0930-transfer.ts'
import * as folder from './20261124T0910-folder.ts'

/** Every migration by name, in order. A migration is frozen once it has been released: change the schema with a new one. */
export const MIGRATIONS: Readonly<Record<string, Migration>> = {
  '20261121T0900-registry': registry,
  '20261121T0910-records': records,
  '20261121T0920-log': log,
  '20261121T0930-clock': clock,
  '20261122T0905-proof': proof,
  '20261122T0915-undo': undo,
  '20261122T0930-brakes': brakes,
  '20261122T0940-alarms': alarms,
  '20261122T0945-merge': merge,
  '20261122T0950-skew': skew,
  '20261123T0900-core': core,
  '20261123T0910-eden': eden,
  '20261123T0915-eden-served': edenServed,
  '20261123T0920-jobs': jobs,
  '20261123T0930-transfer': transfer,
  '20261124T0910-folder': folder,
}
