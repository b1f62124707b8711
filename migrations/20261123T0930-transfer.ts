import { type Kysely, sql } from 'kysely'

/** Keys of the hosts that files are copied to and from. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    create table syncline.host_key (
      host text not null,
      port int not null,
      type text not null,
      key text not null,
      fingerprint text not null,
      trusted_at timestamptz not null default clock_timestamp(),
      trusted_by text,
      primary key (host, port, type)
    );
    comment on table syncline.host_key is 'Keys by which hosts prove who they are, as somebody has confirmed them.';
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
