import { type Kysely, sql } from 'kysely'

/** What happened: one row for each run, one log entry for each transaction with a peer. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    create table syncline.run (
      id int8 generated always as identity primary key,
      peer_id int references syncline.peer on delete set null,
      peer_name text,
      cause text not null,
      state text not null,
      started_at timestamptz not null default clock_timestamp(),
      alive_at timestamptz not null default clock_timestamp(),
      finished_at timestamptz,
      result text check (result in ('success', 'warning', 'error', 'fatal')),
      code text,
      message text,
      counts jsonb not null default '{}'
    );
    create index run_peer on syncline.run (peer_id, id desc);
    create index run_open on syncline.run (id) where finished_at is null;
    comment on column syncline.run.alive_at is 'When the process that performs the run last said so; one that stays silent was killed.';

    create table syncline.log (
      id int8 generated always as identity primary key,
      at timestamptz not null default clock_timestamp(),
      run_id int8,
      peer_id int references syncline.peer on delete set null,
      peer_name text,
      resource text,
      mode text not null,
      direction text not null check (direction in ('incoming', 'outgoing', 'none')),
      action text not null,
      result text not null check (result in ('success', 'warning', 'error', 'fatal')),
      remote bool not null default false,
      message text not null,
      changes int not null default 0,
      applied int not null default 0,
      conflicts int not null default 0,
      quarantined int not null default 0,
      refused int not null default 0,
      bytes int8 not null default 0,
      duration_ms int not null default 0
    );
    create index log_peer on syncline.log (peer_id, id desc);
    create index log_resource on syncline.log (resource, id desc);
    create index log_run on syncline.log (run_id, id desc) where run_id is not null;
    create index log_at on syncline.log (at);
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
