import { type Kysely, sql } from 'kysely'

/** The change order and everything that belongs to single records. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    create table syncline.record (
      xact xid8 not null,
      clock int8 not null,
      born xid8 default pg_current_xact_id(),
      resource_id int not null,
      origin int not null,
      source int,
      deleted bool not null default false,
      record_id text collate "C" not null,
      seen jsonb,
      fields jsonb,
      primary key (resource_id, record_id)
    );
    create index record_feed on syncline.record (resource_id, xact, record_id);
    comment on table syncline.record is
      'One row for every record of every attached resource, living or deleted: version store, tombstone store and change feed at once.';
    comment on column syncline.record.xact is 'The transaction that wrote this version here. With record_id it is the position in the change order.';
    comment on column syncline.record.born is 'The transaction that first brought the record here, by which an undo finds what a run brought new; null after a new log.';
    comment on column syncline.record.source is 'The site this version came from; null when it was made here or settled here.';
    comment on column syncline.record.seen is 'Highest clock seen of every other origin; null means none.';

    comment on column syncline.record.fields is 'The writes behind single fields, by column; * for the others. Null: the version wrote every field.';

    create table syncline.history (
      id int8 generated always as identity primary key,
      resource_id int not null,
      record_id text collate "C" not null,
      run_id int8,
      at timestamptz not null default now(),
      reason text not null,
      origin int not null,
      clock int8 not null,
      seen jsonb,
      deleted bool not null,
      data json,
      refs jsonb,
      xact xid8,
      source int,
      by_origin int,
      by_clock int8,
      rule text
    );
    create index history_record on syncline.history (resource_id, record_id, id);
    create index history_at on syncline.history (at);
    create index history_run on syncline.history (run_id) where run_id is not null;
    comment on table syncline.history is 'Values that were overwritten, deleted or lost a conflict here, with the run that did it.';
    comment on column syncline.history.refs is 'Record ids behind the references of data, where these are numbers of this database.';
    comment on column syncline.history.xact is 'The transaction that wrote this version here, by which its run is found; null after a new log.';
    comment on column syncline.history.source is 'The site this version came from; null when it was made or settled here.';
    comment on column syncline.history.by_clock is 'With by_origin the version that took its place.';
    comment on column syncline.history.rule is 'The policy that decided, where the versions were concurrent.';

    create table syncline.quarantine (
      id int8 generated always as identity primary key,
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      record_id text collate "C" not null,
      via text not null check (via in ('pull', 'push')),
      origin int not null,
      clock int8 not null,
      run_id int8,
      line text not null,
      header jsonb not null,
      code text not null,
      reason text not null,
      waits_resource_id int,
      waits_record_id text collate "C",
      attempts int not null default 1,
      first_at timestamptz not null default now(),
      last_at timestamptz not null default now(),
      retry_at timestamptz,
      asked_at timestamptz,
      unique (peer_id, resource_id, record_id)
    );
    create index quarantine_record on syncline.quarantine (resource_id, record_id);
    create index quarantine_waits on syncline.quarantine (waits_resource_id, waits_record_id);
    comment on table syncline.quarantine is 'Records of peers that could not be applied, each alone, with the reason and what it waits for.';
    comment on column syncline.quarantine.asked_at is 'When the record that it waits for was last asked for by id.';

    create table syncline.conflict (
      id int8 generated always as identity primary key,
      peer_id int references syncline.peer on delete set null,
      resource_id int not null references syncline.resource on delete cascade,
      record_id text collate "C" not null,
      run_id int8,
      base jsonb,
      base_version jsonb,
      ours jsonb,
      ours_version jsonb not null,
      theirs jsonb,
      theirs_version jsonb not null,
      fields text[],
      header jsonb not null,
      line text not null,
      opened_at timestamptz not null default now(),
      updated_at timestamptz not null default now(),
      resolved_at timestamptz,
      resolved_by text,
      resolution text,
      comment text
    );
    create index conflict_open on syncline.conflict (resource_id, record_id) where resolved_at is null;
    comment on column syncline.conflict.fields is 'The fields that need a person; null for all that differ.';

    create table syncline.pending_ref (
      resource_id int not null references syncline.resource on delete cascade,
      record_id text collate "C" not null,
      column_name text not null,
      target_resource_id int not null references syncline.resource on delete cascade,
      target_record_id text collate "C" not null,
      primary key (resource_id, record_id, column_name)
    );
    create index pending_ref_target on syncline.pending_ref (target_resource_id, target_record_id);
    comment on table syncline.pending_ref is 'References inside cycles whose target is not here yet; the column is null until it arrives.';

    create table syncline.parked (
      resource_id int not null references syncline.resource on delete cascade,
      record_id text collate "C" not null,
      fields jsonb not null,
      primary key (resource_id, record_id)
    );
    comment on table syncline.parked is 'Fields of a record that the local table has no column for; kept with the record, never dropped.';

    create table syncline.shared (
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      record_id text collate "C" not null,
      gone bool not null default false,
      primary key (peer_id, resource_id, record_id)
    );
    comment on table syncline.shared is 'For links with a filter: which records the peer was sent, so that it hears when one leaves the filter.';

    create table syncline.checkpoint (
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      direction text not null check (direction in ('pull', 'push', 'ack')),
      value text not null,
      at timestamptz not null default now(),
      primary key (peer_id, resource_id, direction)
    );
    comment on table syncline.checkpoint is
      'pull: our place in the order of the peer; push: up to where the peer took our changes; ack: up to where it pulled them and said so.';
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
