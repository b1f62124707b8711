/** The tables of the contest, and record ids that are the same in every run. */
import type { Shape } from '../contest.ts'

export const ITEM: Shape = {
  ddl: 'create table item (id uuid primary key, name text, qty int, note text)',
  tables: ['item'],
  sites: 2,
  needs: [],
}

/** `code` is unique: two sites can each have what both cannot have. */
export const CODED: Shape = {
  ddl: 'create table item (id uuid primary key, code text unique, name text)',
  tables: ['item'],
  sites: 2,
  needs: ['sql'],
}

export const FAMILY: Shape = {
  ddl: `create table parent (id uuid primary key, name text);
    create table child (id uuid primary key, parent uuid references parent (id) on delete cascade, name text)`,
  tables: ['parent', 'child'],
  sites: 2,
  needs: ['sql'],
}

export function id(n: number): string {
  return `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
}

export const item = (n: number) => `item/${id(n)}`
