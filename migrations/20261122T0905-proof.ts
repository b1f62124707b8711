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
      deep_differing int,
      doubt text,
      agreed_at timestamptz,
      agreed_records int8,
      head text,
      scope text not null default '',
      took_ms real not null default 0,
      primary key (peer_id, resource_id)
    );
    comment on column syncline.agreement.deep_differing is 'Records that a comparison of values found different, until one finds them equal.';
    comment on column syncline.agreement.doubt is 'Why values may differ under equal versions, until a comparison of values.';
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
  // The kept sum, corrected by what was written since. A function, because its settings belong to it: the planner takes any place in the change order for
  // the middle of it and would read the whole table. Between the transactions whose records were counted as they were written, everything behind the place
  // may have changed; one bound below and one above for each gap, as with more of them PostgreSQL begins to read at the wrong one.
  await sql`
    create function syncline.whole_digest(resource int4, out records int8, out sum numeric, out head text, out behind int8)
    language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
    declare
      last text := repeat(chr(1114111), 4);
    begin
      select d.living + coalesce(b.records, 0), d.sum + coalesce(b.sum, 0), coalesce(b.behind, 0),
             (select r.xact::text from syncline.record r where r.resource_id = resource order by r.xact desc, r.record_id desc limit 1)
        into records, sum, behind, head
        from syncline.digest d left join lateral (
          select sum(g.behind) as behind, sum(g.records) as records, sum(g.sum) as sum
            from (select array(select w from unnest(d.whole) w order by w) as whole) w
            cross join lateral (
              select coalesce(g.low, d.folded) as low, case when g.low is null then d.folded_id else last end collate "C" as low_id, g.high
                from unnest(array_prepend(null::xid8, w.whole), array_append(w.whole, '18446744073709551615'::xid8)) as g(low, high) offset 0
            ) gap
            cross join lateral (
              select count(*) as behind, count(*) filter (where not r.deleted) - count(r.counted) as records,
                     coalesce(sum(case when r.deleted then null else hashtextextended(r.record_id, hashtextextended(o.origin, r.clock)) end), 0)
                       - coalesce(sum(r.counted), 0) as sum
                from syncline.record r join syncline.site o on o.id = r.origin
               where r.resource_id = resource and (r.xact, r.record_id) > (gap.low, gap.low_id) and r.xact < gap.high
            ) g
        ) b on true
       where d.resource_id = resource;
    end
    $$
  `.execute(db)
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
