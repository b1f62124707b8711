import { type Kysely, sql } from 'kysely'

/** What waits at peers of what this site sent, what was given up here, and alarms with the notices about them. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    alter table syncline.peer add column paused_at timestamptz;

    create table syncline.elsewhere (
      id int8 generated always as identity primary key,
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      record_id text collate "C" not null,
      outcome text not null check (outcome in ('quarantined', 'refused', 'discarded')),
      origin text,
      clock int8,
      code text not null,
      reason text not null,
      waits_resource text,
      waits_id text,
      dependants int not null default 0,
      attempts int not null default 1,
      first_at timestamptz not null default now(),
      last_at timestamptz not null default now(),
      retry_at timestamptz,
      decided_by text,
      because text,
      terms text,
      unique (peer_id, resource_id, record_id)
    );
    comment on table syncline.elsewhere is 'What waits, was refused or was given up at peers of what this site sent them, as they told.';
    comment on column syncline.elsewhere.terms is 'Mark of what the peer let us write when it refused; when that changes, the record is offered again.';

    create table syncline.discard (
      id int8 generated always as identity primary key,
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      record_id text collate "C" not null,
      origin int not null,
      clock int8 not null,
      code text not null,
      reason text not null,
      decided_by text not null,
      because text,
      at timestamptz not null default now(),
      unique (peer_id, resource_id, record_id)
    );
    comment on table syncline.discard is 'Records of peers that a person here gave up while they waited, by version: a later version comes like any other.';

    create table syncline.alarm (
      id int8 generated always as identity primary key,
      code text not null,
      level text not null check (level in ('info', 'warning', 'critical')),
      peer text not null default '',
      resource text not null default '',
      text text not null,
      mend text not null,
      since timestamptz not null default clock_timestamp(),
      last timestamptz not null default clock_timestamp(),
      ended timestamptz
    );
    create unique index alarm_open on syncline.alarm (code, peer, resource) where ended is null;
    create index alarm_ended on syncline.alarm (ended);
    comment on table syncline.alarm is 'Episodes: from when a rule of the stall detector began to hold until it no longer did.';

    create table syncline.alarm_notice (
      id int8 generated always as identity primary key,
      alarm_id int8 not null references syncline.alarm on delete cascade,
      moment text not null check (moment in ('begin', 'end')),
      channel text not null check (channel in ('mail', 'webhook')),
      attempts int not null default 0,
      next_at timestamptz not null default clock_timestamp(),
      sent_at timestamptz,
      given_up bool not null default false,
      error text,
      unique (alarm_id, moment, channel)
    );
    create index alarm_notice_open on syncline.alarm_notice (id) where sent_at is null and not given_up;
    comment on table syncline.alarm_notice is 'What is to be told of an episode, once at its begin and once at its end, by each channel.';
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
