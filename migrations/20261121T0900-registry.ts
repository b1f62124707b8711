import { type Kysely, sql } from 'kysely'

/**
 * Who is who: this site, its peers, what each may do, and how callers prove who they are.
 * The schema is there already: the migrator keeps its own table in it, and a role that may not create schemas gets it made beforehand.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    create table syncline.site (
      id int generated always as identity primary key,
      origin text collate "C" not null unique,
      uuid uuid not null
    );
    comment on table syncline.site is
      'Every origin of changes as a small integer. A restored site writes under a new origin: its UUID, a slash and its logId.';

    create table syncline.self (
      one bool primary key default true check (one),
      uuid uuid not null,
      site_id int not null references syncline.site,
      name text not null,
      log_id text not null,
      log_seen jsonb not null,
      public_key text not null,
      private_key bytea not null,
      created_at timestamptz not null default now()
    );
    comment on column syncline.self.log_seen is
      'What identifies the cluster, database and timeline that log_id belongs to; a difference mints a new log_id.';

    create table syncline.setting (
      name text primary key,
      value jsonb not null,
      changed_at timestamptz not null default now()
    );

    create table syncline.resource (
      id int generated always as identity primary key,
      name text collate "C" not null unique,
      table_schema text not null,
      table_name text not null,
      table_oid oid not null,
      key_column text not null,
      columns jsonb not null,
      fingerprint text not null,
      capture_version int not null,
      managed bool not null default false,
      added_uuid bool not null default false,
      registered_after text,
      ready bool not null default false,
      marks jsonb,
      attached_at timestamptz not null default now(),
      unique (table_schema, table_name)
    );
    comment on column syncline.resource.registered_after is 'Last key registered while existing rows are being registered; null before and after.';

    comment on column syncline.resource.marks is 'What the triggers keep of single fields: null where nothing merges, else the columns that are counted.';

    create table syncline.peer (
      id int generated always as identity primary key,
      name text not null unique,
      kind text not null default 'syncline',
      uuid uuid not null unique,
      site_id int not null references syncline.site,
      url text,
      token bytea,
      proxy_url text,
      proxy_secret bytea,
      ca_pem text,
      client_cert_pem text,
      client_key bytea,
      paused bool not null default false,
      log_id text,
      clock_offset_ms int,
      last_seen_at timestamptz,
      failures int not null default 0,
      retry_at timestamptz,
      revision int not null default 1,
      created_at timestamptz not null default now()
    );
    comment on column syncline.peer.token is 'What this site shows at the peer, encrypted with the key of the data folder.';

    create table syncline.peer_grant (
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource on delete cascade,
      direction text not null check (direction in ('pull', 'push')),
      filter text,
      columns text[],
      on_conflict text not null default 'newer',
      master uuid,
      fields jsonb not null default '{}',
      primary key (peer_id, resource_id, direction)
    );
    comment on table syncline.peer_grant is 'What a peer may ask of this site: pull from it, or push to it.';

    create table syncline.task (
      id int generated always as identity primary key,
      peer_id int not null references syncline.peer on delete cascade,
      resource_id int not null references syncline.resource,
      mode text not null check (mode in ('pull', 'push', 'both')),
      filter text,
      columns text[],
      on_conflict text not null default 'newer',
      master uuid,
      fields jsonb not null default '{}',
      on_left text not null default 'keep' check (on_left in ('keep', 'remove')),
      schedule text,
      enabled bool not null default true,
      last_run jsonb,
      revision int not null default 1,
      created_at timestamptz not null default now(),
      unique (peer_id, resource_id)
    );
    comment on column syncline.task.last_run is 'How the last run that came to this task ended for it.';
    comment on column syncline.task.schedule is 'cron:<5 or 6 fields>, every:<seconds>, live, or null for by hand only.';

    create table syncline.token (
      id int generated always as identity primary key,
      name text not null,
      role text not null check (role in ('administrator', 'operator', 'viewer', 'peer')),
      peer_id int references syncline.peer on delete cascade,
      hash bytea not null unique,
      created_at timestamptz not null default now(),
      expires_at timestamptz,
      last_used_at timestamptz,
      check ((role = 'peer') = (peer_id is not null))
    );
    comment on column syncline.token.hash is 'SHA-256 of the token. The token itself has 256 random bits and is never kept here.';

    create table syncline.invitation (
      id int generated always as identity primary key,
      name text not null unique,
      hash bytea not null unique,
      pull jsonb not null,
      push jsonb not null,
      created_at timestamptz not null default now(),
      expires_at timestamptz not null,
      redeemed_at timestamptz,
      redeemed_by uuid
    );
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
