import { type Kysely, sql } from 'kysely'

/** What is left of purged tombstones, what peers said of their tables, and the names of parked fields. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    create table syncline.purged (
      id_hash int8 not null,
      clock int8 not null,
      xact xid8 not null,
      resource_id int not null references syncline.resource on delete cascade,
      origin int not null,
      seen jsonb,
      primary key (resource_id, id_hash)
    );
    comment on table syncline.purged is
      'What is left of a purged tombstone: a hash of the record id, and the version of the deletion. Enough to know the record again.';
    comment on column syncline.purged.xact is 'Where the tombstone stood in the change order: peers that had not come so far ask for it by this.';

    create table syncline.purge (
      resource_id int primary key references syncline.resource on delete cascade,
      steps int8 not null default 0,
      xact xid8 not null,
      record_id text collate "C" not null
    );
    comment on table syncline.purge is 'For each resource, how often tombstones were purged and the last position among them.';

    create index record_tombstones on syncline.record (resource_id, xact, record_id) where deleted;

    create table syncline.parked_field (
      resource_id int not null references syncline.resource on delete cascade,
      name text collate "C" not null,
      primary key (resource_id, name)
    );
    comment on table syncline.parked_field is 'Names of the fields in syncline.parked, so that a batch need not look through all of it.';

    create table syncline.peer_schema (
      peer_id int not null references syncline.peer on delete cascade,
      resource text not null,
      fingerprint text not null,
      columns jsonb not null,
      at timestamptz not null default now(),
      primary key (peer_id, resource)
    );
    alter table syncline.task add column mapping jsonb not null default '{}';
    comment on column syncline.task.mapping is 'How columns here and at the peer belong together: rename, constant, omit.';
    comment on table syncline.peer_schema is 'The columns of resources at peers, as they last told.';
  `
  await sql`
    create function syncline.misfit(given jsonb, columns int4) returns jsonb
    language plpgsql as $$
    begin
      raise exception using errcode = '22023',
        message = format('the record has %s values where the batch announces %s columns', jsonb_array_length(given), columns);
    end
    $$
  `.execute(db)
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
