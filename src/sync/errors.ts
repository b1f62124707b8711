/**
 * The closed table of everything that can go wrong by design. `retry` tells a caller what helps:
 * `never` (the request is wrong), `later` (the same request may work), `after-fix` (a person or a setting must change first).
 * docs/errors.md is generated from this table; src/server/problem.ts gives each code its HTTP status.
 */
export type ErrorSpec = {
  readonly retry: 'never' | 'later' | 'after-fix'
  readonly title: string
  /** What to do about it, in one sentence for the person who reads the message. */
  readonly mend: string
}

export const ERRORS = {
  SYNC_CONFIG_INVALID: {
    retry: 'after-fix',
    title: 'Configuration is not valid',
    mend: 'Correct every setting that the message lists; `syncline config check` repeats the check.',
  },
  SYNC_CONFIG_DATA_DIR_LOCKED: {
    retry: 'after-fix',
    title: 'Another process uses this data folder',
    mend: 'Stop the other process, or give this one a data folder of its own.',
  },
  SYNC_CONFIG_DATABASE_NEWER: {
    retry: 'after-fix',
    title: 'The database was written by a newer program',
    mend: 'Run the version of Syncline that made the database, or a later one.',
  },
  SYNC_CONFIG_DATABASE_UNSUITABLE: {
    retry: 'after-fix',
    title: 'This database cannot be used',
    mend: 'Use a writable UTF-8 database on PostgreSQL 13 or newer.',
  },
  SYNC_CONFIG_DATA_KEY_WRONG: {
    retry: 'after-fix',
    title: 'The data folder holds another key than the one that sealed the secrets in the database',
    mend: 'Start with the data folder that belongs to this database; it is part of every backup.',
  },
  SYNC_CONFIG_SITE_UNREACHABLE: {
    retry: 'later',
    title: 'The site does not answer the command line',
    mend: 'Start it with `syncline serve`, or say where it runs with SYNCLINE_URL and SYNCLINE_TOKEN.',
  },
  SYNC_AUTH_MISSING: {
    retry: 'after-fix',
    title: 'No valid credentials',
    mend: 'Send a token as Bearer, or as the password of Basic authentication.',
  },
  SYNC_AUTH_FORBIDDEN: {
    retry: 'after-fix',
    title: 'Not permitted',
    mend: 'Ask an administrator of that site for the permission that the message names.',
  },
  SYNC_AUTH_PAIRING_INVALID: {
    retry: 'after-fix',
    title: 'The pairing code is not valid',
    mend: 'Ask for a new code: a code works once and only until it expires.',
  },
  SYNC_REQUEST_INVALID: {
    retry: 'never',
    title: 'The request is not valid',
    mend: 'Correct what the message names; the OpenAPI document describes the request.',
  },
  SYNC_REQUEST_NOT_FOUND: {
    retry: 'never',
    title: 'There is no such thing here',
    mend: 'Check the name or id; the list command of the same noun shows what there is.',
  },
  SYNC_REQUEST_EXISTS: {
    retry: 'never',
    title: 'That already exists',
    mend: 'Choose another name, or change the existing one.',
  },
  SYNC_REQUEST_CONTRADICTORY: {
    retry: 'after-fix',
    title: 'The policies of the two sites contradict each other',
    mend: 'Choose policies that go together, see docs/guides/conflicts.md; --force makes the task all the same.',
  },
  SYNC_REQUEST_CHANGED: {
    retry: 'after-fix',
    title: 'Somebody changed it in the meantime',
    mend: 'Read it again and repeat the change with the new ETag.',
  },
  SYNC_REQUEST_SETTLED: {
    retry: 'never',
    title: 'That was decided already',
    mend: 'Nothing is left to decide: the message says how it was, by whom and when; `syncline conflict show ID` and `syncline brake show TOKEN` have the rest.',
  },
  SYNC_REQUEST_TOO_LARGE: {
    retry: 'never',
    title: 'The request is too large',
    mend: 'Send less at once; the message names the limit.',
  },
  SYNC_REQUEST_TOO_MANY: {
    retry: 'later',
    title: 'Too many requests',
    mend: 'Wait as long as Retry-After says.',
  },
  SYNC_REQUEST_OVERLOADED: {
    retry: 'later',
    title: 'This site has more to do than it can take',
    mend: 'Wait as long as Retry-After says.',
  },
  SYNC_FORMAT_UNSUPPORTED: {
    retry: 'never',
    title: 'No codec for this media type',
    mend: 'Use application/x-ndjson, application/json, application/xml or, for a push, text/csv.',
  },
  SYNC_FORMAT_INVALID: {
    retry: 'never',
    title: 'The body cannot be read',
    mend: 'Correct the body at the place that the message names. Nothing of it was applied.',
  },
  SYNC_BATCH_INCOMPLETE: {
    retry: 'later',
    title: 'The batch is incomplete or altered',
    mend: 'Nothing of it was applied; ask for it again from the same checkpoint.',
  },
  SYNC_RECORD_INVALID: {
    retry: 'after-fix',
    title: 'The record is not valid here',
    mend: 'Correct the record at its site; it is tried again when it changes.',
  },
  SYNC_RECORD_FIELD_UNKNOWN: {
    retry: 'after-fix',
    title: 'The resource has no such field',
    mend: 'Leave the field out, or add the column and attach the table again.',
  },
  SYNC_RECORD_PARENT_MISSING: {
    retry: 'later',
    title: 'A record that this one refers to is not here yet',
    mend: 'It is applied by itself when the other record arrives.',
  },
  SYNC_RECORD_STILL_REFERENCED: {
    retry: 'later',
    title: 'Other records still refer to the deleted record',
    mend: 'It is deleted by itself when nothing refers to it any more.',
  },
  SYNC_RECORD_CONSTRAINT: {
    retry: 'after-fix',
    title: 'The database refused the record',
    mend: 'Correct the record, or the constraint that the message names; then retry it.',
  },
  SYNC_RECORD_INEXACT: {
    retry: 'after-fix',
    title: 'A column would not keep a value as it is',
    mend: 'Widen the column that the message names; the record is then written by itself.',
  },
  SYNC_RECORD_IN_USE: {
    retry: 'later',
    title: 'The row is held by a transaction of the application',
    mend: 'It is applied by itself when that transaction has ended.',
  },
  SYNC_RECORD_TOO_LARGE: {
    retry: 'after-fix',
    title: 'The record is larger than this site accepts',
    mend: 'Make the record smaller, or raise the record limit of this site.',
  },
  SYNC_RECORD_OUTSIDE_GRANT: {
    retry: 'after-fix',
    title: 'The record is outside what this peer may write',
    mend: 'Ask an administrator of the receiving site to widen the filter or columns of the grant.',
  },
  SYNC_RECORD_CLOCK_AHEAD: {
    retry: 'later',
    title: 'The record is stamped too far in the future',
    mend: 'Correct the clock of the site where the change was made; the record is retried.',
  },
  SYNC_FILTER_INVALID: {
    retry: 'never',
    title: 'The filter cannot be understood',
    mend: 'Correct the filter at the place that the message names; docs/guides/filters.md has the grammar.',
  },
  SYNC_RESOURCE_UNSUITABLE: {
    retry: 'after-fix',
    title: 'The table cannot be attached as it is',
    mend: 'Change the table as the message says, then attach it again.',
  },
  SYNC_RESOURCE_OUTDATED: {
    retry: 'after-fix',
    title: 'The table changed since it was attached',
    mend: 'Attach the table again with `syncline resource attach TABLE`, which renews its triggers; `syncline resource check` names the whole command.',
  },
  SYNC_RESOURCE_SKEW: {
    retry: 'after-fix',
    title: 'A column that must have a value is missing on the other side',
    mend: 'Give the column a default, add it on the other side, or give it a constant value with `syncline task set … --constant column=value`.',
  },
  SYNC_CHECKPOINT_GONE: {
    retry: 'after-fix',
    title: 'The checkpoint is not in this log',
    mend: 'Start again without a checkpoint: versions tell what is already there, nothing is applied twice.',
  },
  SYNC_CHECKPOINT_INVALID: {
    retry: 'never',
    title: 'The checkpoint cannot be read',
    mend: 'Send a checkpoint as this site gave it, or none.',
  },
  SYNC_PEER_UNREACHABLE: {
    retry: 'later',
    title: 'The peer cannot be reached',
    mend: 'Check address, network, proxy and certificate; the run is tried again by itself.',
  },
  SYNC_PEER_REFUSED: {
    retry: 'after-fix',
    title: 'The peer refused the request',
    mend: 'The message is the peer’s own; correct what it names.',
  },
  SYNC_PEER_MISMATCH: {
    retry: 'after-fix',
    title: 'Another site answers at the address of this peer',
    mend: 'Check the address; if the peer was set up anew, remove it and pair again.',
  },
  SYNC_PEER_CLONED: {
    retry: 'after-fix',
    title: 'Two sites live under one UUID',
    mend: 'Stop the copy, or give it a database of its own; then `syncline sync --release TOKEN` lets the exchange go on.',
  },
  SYNC_PEER_PAUSED: {
    retry: 'after-fix',
    title: 'The peer is paused',
    mend: 'Run `syncline peer resume`.',
  },
  SYNC_PEER_STALLED: {
    retry: 'later',
    title: 'The peer says that more follows, but does not move on',
    mend: 'Look at the log of that site; the run is tried again by itself.',
  },
  SYNC_PEER_FOLDER_FORBIDDEN: {
    retry: 'after-fix',
    title: 'The folder of this peer may not be used',
    mend: 'Name a folder above it in the setting folderRoots, or choose another one: docs/guides/folders.md.',
  },
  SYNC_RUN_ACTIVE: {
    retry: 'later',
    title: 'A run with this peer is under way',
    mend: 'Wait for it to end; `syncline log --follow` shows it.',
  },
  SYNC_RUN_UNDO_INCOMPLETE: {
    retry: 'after-fix',
    title: 'Not everything that the run changed can be put back',
    mend: 'Look at `syncline run undo ID --preview`; with --partial the rest is taken back.',
  },
  SYNC_RUN_BRAKED: {
    retry: 'after-fix',
    title: 'A brake holds this back until a person has looked',
    mend: 'Look at what the message names; if it is meant, `syncline sync --release TOKEN` lets it go on, once.',
  },
  SYNC_JOB_FAILED: {
    retry: 'after-fix',
    title: 'A step of the job failed',
    mend: 'Look at its output with `syncline job show JOB --run ID`, mend what it names, and run the job again.',
  },
  SYNC_JOB_BLOCKED: {
    retry: 'later',
    title: 'What the job waits for was not free in time',
    mend: 'See who holds it with `syncline lease list`; the job is tried again when it is due next.',
  },
  SYNC_JOB_TIME_LIMIT: {
    retry: 'after-fix',
    title: 'The time limit is over',
    mend: 'Find out what took so long, or raise the time limit of the job or step.',
  },
  SYNC_JOB_INTERRUPTED: {
    retry: 'after-fix',
    title: 'The process under a step was lost',
    mend: 'Look at what the step had done and run the job again; a command that may be begun twice is marked with `repeatable: true`.',
  },
  SYNC_JOB_LEASE_LOST: {
    retry: 'later',
    title: 'A lease was lost while the job ran',
    mend: 'Find out who released or took it; the job was ended so that two do not work on the same thing.',
  },
  SYNC_JOB_STOPPED: {
    retry: 'never',
    title: 'The job was stopped by a person',
    mend: 'Run it again when it is wanted.',
  },
  SYNC_TRANSFER_INVALID: {
    retry: 'after-fix',
    title: 'The transfer is not allowed as it is described',
    mend: 'Correct what the message lists; docs/guides/rsync-between-hosts.md has every setting and option.',
  },
  SYNC_TRANSFER_TOOL: {
    retry: 'after-fix',
    title: 'The machine of this site lacks a program for transfers',
    mend: 'Install what the message names: rsync 3.1 or newer and the OpenSSH client, which `syncline doctor` looks for, or curl for FTPS.',
  },
  SYNC_TRANSFER_UNREACHABLE: {
    retry: 'later',
    title: 'The other host cannot be reached',
    mend: 'Check name, port, network and jump host; it is tried again as the job says.',
  },
  SYNC_TRANSFER_UNTRUSTED: {
    retry: 'after-fix',
    title: 'Nobody has said that the key of this host is the right one',
    mend: 'Run `syncline transfer trust HOST`, and compare the fingerprint with the one that the host itself shows.',
  },
  SYNC_TRANSFER_DENIED: {
    retry: 'after-fix',
    title: 'The other host does not allow it',
    mend: 'Check user, key, and what the host allows this key to do; the message has its own words.',
  },
  SYNC_TRANSFER_INTERRUPTED: {
    retry: 'later',
    title: 'The transfer broke off',
    mend: 'It goes on where it was when it is tried again, as the job says.',
  },
  SYNC_TRANSFER_INCOMPLETE: {
    retry: 'later',
    title: 'The copy is not what the source is',
    mend: 'Look at the files that the message names: a source that is written to all the time needs a snapshot to copy from.',
  },
  SYNC_TRANSFER_BRAKED: {
    retry: 'after-fix',
    title: 'A transfer would delete more than it may',
    mend: 'Look at `syncline job run NAME --plan`; if it is meant, raise maxDelete or set emptySource to allow.',
  },
  SYNC_TRANSFER_STOPPED: {
    retry: 'later',
    title: 'The transfer was stopped',
    mend: 'Run the job again: it goes on where it was.',
  },
  SYNC_TRANSFER_FAILED: {
    retry: 'after-fix',
    title: 'The transfer failed',
    mend: 'Correct what the message names: a path, a permission, or room on a disk.',
  },
  SYNC_STORE_UNAVAILABLE: {
    retry: 'later',
    title: 'The database does not answer',
    mend: 'Check that PostgreSQL runs and accepts the credentials of SYNCLINE_DATABASE_URL.',
  },
  SYNC_STORE_BUSY: {
    retry: 'later',
    title: 'The database is busy with the same rows',
    mend: 'Nothing was applied; the batch is tried again.',
  },
  SYNC_STORE_RIGHTS: {
    retry: 'after-fix',
    title: 'The database role lacks a right',
    mend: 'Grant what the message names; docs/guides/database-grants.md lists every grant.',
  },
  SYNC_INTERNAL: {
    retry: 'never',
    title: 'Internal error',
    mend: 'Look for the request id in the log of that site and report it.',
  },
} as const satisfies Record<`SYNC_${string}`, ErrorSpec>

export type ErrorCode = keyof typeof ERRORS

/** Codes that a single record of a batch can be refused or quarantined with. */
export type RecordErrorCode = Extract<ErrorCode, `SYNC_RECORD_${string}`>

/** A failure the design expects. A bug is an assertion, an abort is an AbortSignal reason; neither is this. */
export class SynclineError extends Error {
  override readonly name = 'SynclineError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, detail: string, options?: ErrorOptions) {
    super(detail, options)
    this.code = code
  }
}

/** True for codes that the same request may get past by waiting. */
export function mayRetryLater(code: ErrorCode): boolean {
  return ERRORS[code].retry === 'later'
}
