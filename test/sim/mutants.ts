// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are texts of the source
/** Bugs that are planted on purpose, each as a text of the source and what it is replaced by. A simulation that does not find them is worth nothing. */
export type Mutant = {
  readonly name: string
  /** What it would do to people. */
  readonly harm: string
  readonly edits: readonly { readonly file: string; readonly find: string; readonly put: string }[]
  /** Options of `npm run sim` under which it shows soonest. */
  readonly options?: readonly string[]
}

const CHECKPOINT = `    if (pull.batch.next !== undefined && pull.batch.purged === undefined)
      await writeCheckpoint(trx, link.peer.id, resource.id, 'pull', pull.batch.next.checkpoint)
`

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'cursor without horizon',
    harm: 'what a transaction commits late lies before the checkpoint and never travels',
    edits: [
      {
        file: 'src/store/collect.ts',
        find: '         and r.xact < pg_snapshot_xmin(pg_current_snapshot())\n       order by r.xact, r.record_id limit',
        put: '       order by r.xact, r.record_id limit',
      },
      {
        file: 'src/store/collect-plain.ts',
        find: 'and r.xact < pg_snapshot_xmin(pg_current_snapshot()) and (select usable from room)',
        put: 'and (select usable from room)',
      },
    ],
  },
  {
    name: 'checkpoint before commit',
    harm: 'a crash between the two skips the batch for ever',
    edits: [
      { file: 'src/store/exchange.ts', find: CHECKPOINT, put: '' },
      {
        file: 'src/store/exchange.ts',
        find: '  return applyAll(store, context, [pull.batch], async (trx, report) => {',
        put: `  if (pull.batch.next !== undefined && pull.batch.purged === undefined)
    await writeCheckpoint(store.db, link.peer.id, resource.id, 'pull', pull.batch.next.checkpoint)
  return applyAll(store, context, [pull.batch], async (trx, report) => {`,
      },
    ],
  },
  {
    name: '> for >= in the comparison of dots',
    options: ['--policy', 'ask'],
    harm: 'an edit of what is here counts as a conflict with it',
    edits: [
      {
        file: 'src/store/stage.ts',
        find: "    when (case when p.origin = l.origin then p.clock else (p.seen ->> l.origin::text)::int8 end) >= l.clock then 'f'",
        put: "    when (case when p.origin = l.origin then p.clock else (p.seen ->> l.origin::text)::int8 end) > l.clock then 'f'",
      },
      {
        file: 'src/sync/version.ts',
        find: 'return seenOf(version, dot.origin) >= dot.clock',
        put: 'return seenOf(version, dot.origin) > dot.clock',
      },
    ],
  },
  {
    name: 'no echo suppression',
    harm: 'each change goes back over the link it came by',
    edits: [
      {
        file: 'src/store/collect.ts',
        find: 'case when s.source is not distinct from ${peer.siteId} then null\n',
        put: 'case when false then null\n',
      },
      { file: 'src/store/collect.ts', find: 'sql`and s.source is distinct from ${peer.siteId}`', put: 'sql``' },
      { file: 'src/store/collect-plain.ts', find: 'and r.source is distinct from ${peer.siteId}', put: '' },
    ],
  },
  {
    name: 'seen is not joined',
    harm: 'a version forgets what it had seen, and old conflicts come back',
    edits: [
      {
        file: 'src/store/write.ts',
        find: 'else syncline.join_seen(s.origin, s.seen, s.origin, s.clock, s.l_seen, s.l_origin, s.l_clock) end',
        put: 'else s.seen end',
      },
    ],
  },
  {
    name: 'quarantine drops what waits for its parent',
    harm: 'a record whose parent comes later is lost',
    edits: [
      {
        file: 'src/store/quarantine.ts',
        find: "where class in ('w', 'b', 'q', 'o') limit 1",
        put: "where class in ('b', 'q', 'o') limit 1",
      },
    ],
  },
  {
    name: 'what loses is not kept',
    harm: 'the values that lost a conflict are gone without a trace',
    edits: [
      {
        file: 'src/store/settle.ts',
        find: 'verdicts.filter(({ loses }) => loses === true)',
        put: 'verdicts.filter(({ loses }) => loses === null)',
      },
      {
        file: 'src/store/write.ts',
        find: '  if (superseding) await keepBeforeImages(',
        put: '  if (superseding && 0 > 1) await keepBeforeImages(',
      },
    ],
  },
  {
    name: 'a restored site goes on in its old log',
    harm: 'new writes share versions with those of its lost future',
    edits: [
      {
        file: 'src/store/registry/self.ts',
        find: 'return PARTS.some((part) => seen[part] !== null && now[part] !== null && seen[part] !== now[part])',
        put: 'return PARTS.length === 0 && seen === now',
      },
      {
        file: 'src/store/registry/self.ts',
        find: 'seen === null || now === null || seen === now',
        put: 'seen === null || now === null || seen !== `${now} `',
      },
    ],
  },
  {
    name: 'the newer of two wins by arrival',
    harm: 'sites keep what came last, each something else',
    edits: [
      {
        file: 'src/sync/conflict.ts',
        find: 'const greater = () => (versionOrder(policy)(incoming.version, local.version) > 0 ? take() : keep())',
        put: 'const greater = () => (versionOrder(policy)(incoming.version, local.version) !== 0 ? take() : keep())',
      },
    ],
  },
  {
    name: 'deletions of unknown records are skipped',
    harm: 'a record that was deleted elsewhere rises from the dead when it comes by another way',
    edits: [
      {
        file: 'src/store/write.ts',
        find: "where s.class = 'n' and ${within(range)} offset 0) r",
        put: "where s.class = 'n' and s.kind = 'p' and ${within(range)} offset 0) r",
      },
    ],
  },
  {
    name: 'TRUNCATE is not captured',
    harm: 'the rows stay everywhere else',
    edits: [
      { file: 'src/store/capture-function.ts', find: "else${tombstones(resource, 'now_us')};", put: 'else null;' },
    ],
    options: ['--actions', '90'],
  },
  {
    name: 'the place of a push moves before the answer',
    harm: 'what was on its way when the line broke is never sent again',
    edits: [
      {
        file: 'src/client/run-effects.ts',
        find: '    const sent = await send(run, resource, batch)\n',
        put: '    await moveOn(run, resource, checkpoint, null)\n    const sent = await send(run, resource, batch)\n',
      },
    ],
  },
  {
    name: 'XOR digest of versions',
    harm: 'two changes that are alike cancel each other, and different sites look equal',
    edits: [
      {
        file: 'src/store/digest-sum.ts',
        find: 'hashtextextended(r.record_id, hashtextextended(o.origin, r.clock))',
        put: 'hashtextextended(o.origin, r.clock)',
      },
      {
        file: 'src/store/digests.ts',
        find: 'coalesce(sum(hash), 0)::text as sum from',
        put: 'coalesce(bit_xor(hash), 0)::text as sum from',
      },
    ],
  },
  {
    name: 'tombstone purged early',
    harm: 'a peer that was away brings the record back',
    edits: [
      {
        file: 'src/store/purge.ts',
        find: '         and (${acknowledged} or r.clock <',
        put: '         and (true or r.clock <',
      },
      {
        file: 'src/store/purge.ts',
        find: 'hashtextextended(record_id, 0), clock, xact, origin, seen from due\n',
        put: 'hashtextextended(record_id, 0), clock, xact, origin, seen from due where false\n',
      },
    ],
  },
]
