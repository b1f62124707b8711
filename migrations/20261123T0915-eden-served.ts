import { type Kysely, sql } from 'kysely'

/** What this site keeps to answer Sahana Eden sites that call. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table syncline.eden_registration (
      peer_id int primary key references syncline.peer on delete cascade,
      repository text not null,
      name text not null,
      apitype text not null,
      at timestamptz not null default now()
    )`.execute(db)
  await sql`comment on table syncline.eden_registration is 'Peers of Sahana Eden that registered here, by the name that they give themselves.'`.execute(
    db,
  )
  await sql`
    create table syncline.eden_trail (
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      trail jsonb not null,
      at timestamptz not null default now(),
      primary key (peer_id, resource_id)
    )`.execute(db)
  await sql`comment on table syncline.eden_trail is 'How far a Sahana Eden site that pulls has come in the order of this site, by the times that it asked with.'`.execute(
    db,
  )
  await sql`
    create table syncline.eden_stranger (
      peer_id int not null references syncline.peer on delete cascade,
      table_name text collate "C" not null,
      uuid text collate "C" not null,
      resource_id int references syncline.resource on delete cascade,
      record_id text collate "C",
      element jsonb not null,
      at timestamptz not null default now(),
      primary key (peer_id, table_name, uuid)
    )`.execute(db)
  await sql`comment on table syncline.eden_stranger is 'Records of tables that this site has not, as a Sahana Eden site sent them, and the record that they stood in.'`.execute(
    db,
  )
  await sql`create index eden_stranger_within on syncline.eden_stranger (resource_id, record_id) where record_id is not null`.execute(
    db,
  )
  await sql`create index eden_record_shown on syncline.eden_record (resource_id, record_id) where origin is not null`.execute(
    db,
  )
  await sql`
    create table syncline.eden_dataset (
      id int generated always as identity primary key,
      uuid uuid not null unique default gen_random_uuid(),
      code text collate "C" not null check (code ~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$'),
      name text not null,
      comments text,
      created_at timestamptz not null default now(),
      modified_at timestamptz not null default now(),
      removed_at timestamptz
    )`.execute(db)
  await sql`create unique index eden_dataset_code on syncline.eden_dataset (code) where removed_at is null`.execute(db)
  await sql`
    create table syncline.eden_dataset_table (
      id int generated always as identity primary key,
      uuid uuid not null unique default gen_random_uuid(),
      filter_uuid uuid not null unique default gen_random_uuid(),
      dataset_id int not null references syncline.eden_dataset on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      filter text,
      unique (dataset_id, resource_id)
    )`.execute(db)
  await sql`
    create table syncline.eden_archive (
      id int generated always as identity primary key,
      dataset_id int not null references syncline.eden_dataset on delete cascade,
      name text collate "C" not null unique,
      made_at timestamptz not null default now(),
      records int8 not null default 0,
      bytes int8 not null default 0,
      complete bool not null default false
    )`.execute(db)
  await sql`
    create table syncline.eden_archive_piece (
      archive_id int not null references syncline.eden_archive on delete cascade,
      n int not null,
      bytes bytea not null,
      primary key (archive_id, n)
    )`.execute(db)
  const comments = {
    'table syncline.eden_dataset':
      'Tables that this site publishes together for Sahana Eden sites; a removed one is still told to have gone.',
    'table syncline.eden_dataset_table': 'A table of a data set; at Eden it is a task.',
    'column syncline.eden_dataset_table.filter': 'In the words of Eden, such as ~.name__like=A*.',
    'table syncline.eden_archive': 'All of a data set as it was, as one zip file in pieces.',
  }
  for (const [of, text] of Object.entries(comments))
    await sql.raw(`comment on ${of} is '${text.replaceAll("'", "''")}'`).execute(db)
}
