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
}
