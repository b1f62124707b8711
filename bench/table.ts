/** The table that every measurement uses: a uuid key and 12 typed columns, about 300 bytes a row. */
export const ITEM_COLUMNS = 'name, code, note, small, medium, large, price, ratio, open, born, seen_at, tags'

export function createItem(name: string): string {
  return `create table ${name} (
    id uuid primary key default gen_random_uuid(), name text not null, code varchar(20), note text, small int2, medium int4 not null, large int8,
    price numeric(12,2), ratio float8, open boolean not null, born date, seen_at timestamptz not null, tags jsonb)`
}

/** Rows first..last of a table made by createItem. */
export function fillItem(name: string, first: number, last: number): string {
  return `insert into ${name} (${ITEM_COLUMNS})
    select 'Item number ' || n, 'C-' || n, repeat(md5(n::text), 3), n % 30000, n, n::int8 * 1000003, n / 7.0, n * 1.25, n % 2 = 0,
           date '2000-01-01' + n % 9000, timestamptz '2026-01-01 00:00+00' + n * interval '1 second', jsonb_build_object('n', n, 'list', array['a', 'b'])
      from generate_series(${first}, ${last}) n`
}
