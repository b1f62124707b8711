import { type Kysely, sql } from 'kysely'

/** What is known of records at Sahana Eden sites, beside the records themselves. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table syncline.eden_record (
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      record_id text collate "C" not null,
      uuid text,
      origin text collate "C",
      clock int8,
      seen jsonb,
      modified_on int8,
      deleted bool,
      prints jsonb,
      emptied jsonb not null default '[]',
      shown_at int8,
      sent jsonb,
      mci int not null default 0,
      attributes jsonb not null default '{}',
      gone bool not null default false,
      replaced_by text,
      within text,
      round int8 not null default 0,
      refused text,
      attempts int not null default 0,
      retry_at timestamptz,
      at timestamptz not null default now(),
      primary key (peer_id, resource_id, record_id),
      check ((origin is null) = (clock is null))
    )`.execute(db)
  const comments = {
    'table syncline.eden_record': 'What a Sahana Eden site was found to have of a record, and what it was sent.',
    'column syncline.eden_record.uuid': 'Name of the record at Eden, as it writes it.',
    'column syncline.eden_record.origin':
      'With clock and seen the version here that Eden was found to have; null when it never showed the record.',
    'column syncline.eden_record.modified_on': 'Seconds since 1970, as Eden said last.',
    'column syncline.eden_record.prints': 'A print of each field that had a value.',
    'column syncline.eden_record.emptied': 'Fields that had a value before: Eden leaves out what is empty.',
    'column syncline.eden_record.shown_at':
      'Seconds since 1970 by the clock of Eden when it showed the record: what is modified later is a new write.',
    'column syncline.eden_record.sent':
      'What it was sent last, until it shows that it took it: version, modifiedOn, deleted, prints.',
    'column syncline.eden_record.mci': 'Master copy index as Eden sent it; 0 for what Eden never sent.',
    'column syncline.eden_record.attributes':
      'All attributes of the element: who made and owns it, whether it is approved, and those that this site does not know.',
    'column syncline.eden_record.gone': 'Eden once showed it, and left it out of a full comparison.',
    'column syncline.eden_record.replaced_by': 'Record that it was merged into, until references follow it.',
    'column syncline.eden_record.within':
      'Record that it stood in when it was told or shown: a deletion does not say that any more.',
    'column syncline.eden_record.round': 'Number of the last full comparison that showed it.',
    'column syncline.eden_record.refused':
      'Why Eden did not take what was sent; null when it did, or nothing was sent.',
  }
  for (const [of, text] of Object.entries(comments))
    await sql.raw(`comment on ${of} is '${text.replaceAll("'", "''")}'`).execute(db)
  await sql`create index eden_record_refused on syncline.eden_record (peer_id, resource_id, retry_at) where refused is not null`.execute(
    db,
  )
  await sql`create index eden_record_merged on syncline.eden_record (peer_id, resource_id) where replaced_by is not null`.execute(
    db,
  )
  await sql`
    create table syncline.eden_table (
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      round int8 not null default 0,
      compared_at timestamptz,
      took_ms int,
      dataset text,
      dataset_task text,
      dataset_filter jsonb not null default '[]',
      archive_origin text,
      archived_at timestamptz,
      primary key (peer_id, resource_id)
    )`.execute(db)
  await sql`comment on table syncline.eden_table is 'Full comparisons with a table of a Sahana Eden site: how many there were, when the last one was, how long it took.'`.execute(
    db,
  )
  const dataset = {
    'column syncline.eden_table.dataset': 'Code of the data set there that the task with it came with.',
    'column syncline.eden_table.dataset_task': 'Name of that task there, and of the file in an archive.',
    'column syncline.eden_table.dataset_filter': 'Filters of that task, as variables of an address.',
    'column syncline.eden_table.archive_origin': 'Where the archive was when somebody chose to follow the data set.',
    'column syncline.eden_table.archived_at': 'When an archive was read in the place of everything.',
  }
  for (const [of, text] of Object.entries(dataset))
    await sql.raw(`comment on ${of} is '${text.replaceAll("'", "''")}'`).execute(db)
}
