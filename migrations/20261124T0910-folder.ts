import { type Kysely, sql } from 'kysely'

/** Peers that are folders: how they are read and written, which files were taken, and files in the making. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    create table syncline.folder (
      peer_id int primary key references syncline.peer on delete cascade,
      settings jsonb not null
    );
    comment on table syncline.folder is 'How a peer that is a folder is read and written.';
    create table syncline.folder_file (
      id int8 generated always as identity primary key,
      peer_id int not null references syncline.peer on delete cascade,
      name text collate "C" not null,
      bytes int8 not null,
      modified text not null,
      sha256 text,
      place int8,
      resources jsonb not null default '{}',
      left_over jsonb not null default '{}',
      state text not null check (state in ('new', 'waiting', 'taken', 'refused', 'changed')),
      gone bool not null default false,
      reason text,
      seen_at timestamptz not null default clock_timestamp(),
      taken_at timestamptz,
      check (state <> 'waiting' or place is not null)
    );
    comment on table syncline.folder_file is 'Files that were seen in a folder. Each is taken once.';
    comment on column syncline.folder_file.name is 'Below the folder.';
    comment on column syncline.folder_file.modified is 'Time of the file in nanoseconds since 1970.';
    comment on column syncline.folder_file.place is 'Order in which files are read; null before a file is ready.';
    comment on column syncline.folder_file.resources is 'Records in it, by resource.';
    comment on column syncline.folder_file.left_over is 'What of it could not be read or is of no resource here, in words, by what it is.';
    comment on column syncline.folder_file.state is 'new: seen once, may be written to still; waiting: to be read; taken; refused: cannot be read; changed: it was written to while it was read.';
    comment on column syncline.folder_file.gone is 'It is no longer there under this name, or has another content now.';
    create unique index folder_file_name on syncline.folder_file (peer_id, name) where not gone;
    create index folder_file_place on syncline.folder_file (peer_id, place) where state = 'waiting';
    create table syncline.folder_output (
      peer_id int not null references syncline.peer on delete cascade,
      spool text not null,
      bytes int8 not null,
      file_state jsonb not null,
      records jsonb not null,
      name text,
      begun_at timestamptz not null default clock_timestamp(),
      primary key (peer_id, spool)
    );
    comment on table syncline.folder_output is 'Files in the making: what was pushed to a folder and is not under its name yet.';
    comment on column syncline.folder_output.spool is 'Name of the hidden file it grows in.';
    comment on column syncline.folder_output.bytes is 'What of that file counts: what stands behind it was cut off by a crash.';
    comment on column syncline.folder_output.name is 'The name it is given; null before it is complete.';
    alter table syncline.eden_record add column told jsonb;
    comment on column syncline.eden_record.told is 'Folders: what was written before sent and was not shown yet, the earliest first, as in sent. Files come back in any order.';
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
