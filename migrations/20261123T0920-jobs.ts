import { type Kysely, sql } from 'kysely'

/** Jobs, their runs, the tries of their steps, and leases. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    create table syncline.job_definition (
      id int generated always as identity primary key,
      name text not null unique,
      definition jsonb not null,
      revision int not null default 1,
      enabled bool not null,
      events text[] not null default '{}',
      considered_at timestamptz not null default clock_timestamp(),
      next_due timestamptz,
      created_at timestamptz not null default clock_timestamp(),
      changed_at timestamptz not null default clock_timestamp(),
      last_result text,
      last_finished_at timestamptz,
      last_success_at timestamptz
    );
    create index job_due on syncline.job_definition (next_due) where enabled and next_due is not null;
    comment on table syncline.job_definition is 'Scheduled work as it was defined. Everything but definition and enabled is worked out by the site.';
    comment on column syncline.job_definition.considered_at is 'Every due time up to then has been turned into a run, or left out by rule.';
    comment on column syncline.job_definition.events is 'What sets it off besides times, as written in its schedule.';

    create table syncline.job_run (
      id int8 generated always as identity primary key,
      job_id int references syncline.job_definition on delete set null,
      job_name text not null,
      cause text not null,
      caller text,
      due_at timestamptz,
      phase text not null default 'queued' check (phase in ('queued', 'waiting', 'running', 'over')),
      next_at timestamptz not null default clock_timestamp(),
      definition jsonb not null,
      state jsonb,
      dry_run bool not null default false,
      priority int not null default 0,
      peers text[] not null default '{}',
      coalesced int not null default 0,
      reason text,
      waiting_since timestamptz,
      blocked_ms int8 not null default 0,
      token uuid not null default gen_random_uuid(),
      worker uuid,
      host text,
      pid int,
      alive_until timestamptz,
      stop_asked_at timestamptz,
      stop_asked_by text,
      queued_at timestamptz not null default clock_timestamp(),
      started_at timestamptz,
      finished_at timestamptz,
      result text check (result in ('success', 'warning', 'error', 'skipped', 'stopped')),
      code text,
      message text,
      counts jsonb not null default '{}',
      progress jsonb,
      dead bool not null default false,
      changed_at timestamptz not null default clock_timestamp()
    );
    create unique index job_run_due on syncline.job_run (job_id, due_at) where due_at is not null;
    create index job_run_open on syncline.job_run (next_at) where phase <> 'over';
    create index job_run_of on syncline.job_run (job_id, id);
    create index job_run_changed on syncline.job_run (changed_at);
    create index job_run_dead on syncline.job_run (job_id) where dead;
    comment on table syncline.job_run is 'Runs of jobs: those to come, those under way, and the history.';
    comment on column syncline.job_run.next_at is 'Not before then: due time with jitter, or the next look at what blocks it.';
    comment on column syncline.job_run.worker is 'The process that has it; another one may go on with it once alive_until has passed.';
    comment on column syncline.job_run.dead is 'Failed for good, and no later run of the job has succeeded.';

    create table syncline.job_step (
      id int8 generated always as identity primary key,
      run_id int8 not null references syncline.job_run on delete cascade,
      stage text not null check (stage in ('steps', 'always')),
      place int not null,
      name text not null,
      kind text not null,
      attempt int not null,
      host text not null,
      started_at timestamptz not null default clock_timestamp(),
      finished_at timestamptz,
      result text check (result in ('success', 'warning', 'error')),
      code text,
      message text,
      counts jsonb not null default '{}',
      output text not null default ''
    );
    create index job_step_of on syncline.job_step (run_id, id);
    comment on table syncline.job_step is 'Each try of each step, with the beginning and the end of its output.';

    create table syncline.lease (
      name text collate "C" primary key,
      token uuid not null,
      owner text not null,
      run_id int8,
      site text not null,
      host text not null,
      pid int not null,
      peer_id int references syncline.peer on delete cascade,
      taken_at timestamptz not null default clock_timestamp(),
      renewed_at timestamptz not null default clock_timestamp(),
      expires_at timestamptz not null
    );
    comment on table syncline.lease is 'What is held, by whom and until when by the clock of this database. The token alone renews and releases.';
    comment on column syncline.lease.peer_id is 'The peer that took it through the API; null for runs of this site.';
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
