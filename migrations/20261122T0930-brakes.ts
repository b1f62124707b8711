import { type Kysely, sql } from 'kysely'

/** What stops a run before it writes: limits of tasks and grants, what waits for a person's word, and the marks by which two sites of one UUID are told. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    alter table syncline.task
      add column max_deletes text,
      add column max_changes text,
      add column empty_guard bool not null default true,
      add column canary text collate "C";
    comment on column syncline.task.max_deletes is 'Most records that one run deletes without a person: a number, a share, both, or none; null for the usual limit.';
    comment on column syncline.task.canary is 'Id of a record that must live at the peer; without it a run does not begin to write.';

    alter table syncline.peer_grant
      add column max_deletes text,
      add column max_changes text;

    alter table syncline.self add column mark text not null default '';
    comment on column syncline.self.mark is 'Made anew at every start and never shown again once it was replaced: a peer that meets a former one has met a copy.';

    create table syncline.brake (
      id int8 generated always as identity primary key,
      token text collate "C" not null unique,
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int references syncline.resource on delete cascade,
      direction text not null check (direction in ('pull', 'push', 'receive', 'peer', 'repair')),
      rules text[] not null,
      reason text not null,
      facts jsonb not null,
      run_id int8,
      opened_at timestamptz not null default clock_timestamp(),
      seen_at timestamptz not null default clock_timestamp(),
      times int not null default 1,
      released_at timestamptz,
      released_by text,
      comment text,
      used_at timestamptz,
      ended_at timestamptz,
      ending text check (ending in ('used', 'changed', 'cleared', 'expired'))
    );
    create unique index brake_open on syncline.brake (peer_id, coalesce(resource_id, 0), direction) where ended_at is null;
    comment on table syncline.brake is 'Runs that were stopped before they wrote, and who let them go on. One open entry for a peer, a resource and a direction.';
    comment on column syncline.brake.used_at is 'When what was released first went on.';

    create table syncline.brake_meter (
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      since timestamptz not null default clock_timestamp(),
      deletes int8 not null default 0,
      changes int8 not null default 0,
      primary key (peer_id, resource_id)
    );
    comment on table syncline.brake_meter is 'What a peer that pushes has deleted and changed here since an instant: its batches count together.';

    create table syncline.peer_mark (
      peer_id int not null references syncline.peer on delete cascade,
      mark text collate "C" not null,
      first_at timestamptz not null default clock_timestamp(),
      superseded_at timestamptz,
      primary key (peer_id, mark)
    );
    comment on table syncline.peer_mark is 'Marks that a peer has shown, the current one and those before it.';
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
