import { type Kysely, sql } from 'kysely'

/** What proves two sites equal: a sum over the living records of each resource that is kept up to date, and what each comparison found. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    alter table syncline.record add column counted int8;
    comment on column syncline.record.counted is
      'What this record added to the sum of its resource in syncline.digest when it was last looked at; null when it is not in the sum.';

    create table syncline.digest (
      resource_id int primary key references syncline.resource on delete cascade,
      living int8 not null default 0,
      sum numeric not null default 0,
      folded xid8 not null default '0',
      folded_id text collate "C" not null default '',
      whole xid8[] not null default '{}'
    );
    comment on table syncline.digest is
      'For each resource the number of living records and the sum of their hashes, as far as syncline.record.counted says. Records behind the place (folded, folded_id) in the change order may have changed since, those of the transactions in whole excepted.';

    create table syncline.agreement (
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      verdict text not null check (verdict in ('equal', 'waiting', 'different', 'unknown')),
      reason text,
      compared_at timestamptz not null default clock_timestamp(),
      records int8,
      differing int,
      agreed_at timestamptz,
      agreed_records int8,
      head text,
      scope text not null default '',
      took_ms real not null default 0,
      primary key (peer_id, resource_id)
    );
    comment on table syncline.agreement is 'What the last comparison with a peer found, and when both sites were last found equal.';

    create table syncline.kept (
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      record_id text collate "C" not null,
      origin int not null,
      clock int8 not null,
      primary key (peer_id, resource_id, record_id)
    );
    comment on table syncline.kept is
      'Records that left the filter of a link at the peer and were kept here; with another version than this one they count again.';
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
  // Whoever removes a record, by whatever way, takes it out of the sum.
  await sql`
    create function syncline.uncount() returns trigger
    language plpgsql as $$
    begin
      update syncline.digest d set living = d.living - o.records, sum = d.sum - o.sum
        from (select resource_id, count(*) as records, sum(counted) as sum from old_rows where counted is not null group by 1) o
       where d.resource_id = o.resource_id;
      return null;
    end
    $$
  `.execute(db)
  await sql`
    create trigger uncount after delete on syncline.record referencing old table as old_rows
      for each statement execute function syncline.uncount()
  `.execute(db)
  // Also for those who write as a replica does, past the triggers of the application.
  await sql`alter table syncline.record enable always trigger uncount`.execute(db)
}
