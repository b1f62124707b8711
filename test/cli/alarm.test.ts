import { PassThrough, Readable } from 'node:stream'
import t from 'tap'
import { alarmFindings, alarmLines, withAlarms } from '../../src/cli/alarm.ts'
import { createOutput } from '../../src/cli/output.ts'
import type { StatusRow } from '../../src/cli/status-lights.ts'
import type { Alarm } from '../../src/store/index.ts'

const since = new Date(Date.now() - 180_500).toISOString()
const ALARM: Alarm = {
  id: '1',
  code: 'quarantine-growing',
  level: 'critical',
  peer: 'hub',
  resource: 'city',
  text: '101 records of city from hub went into quarantine within an hour',
  mend: 'see why',
  since,
  last: since,
  ended: null,
  notified: { begin: null, end: null },
}
const ROW = { peer: 'hub', resource: 'city', light: 'green', why: ['proved equal just now'] } as unknown as StatusRow
const lights = (rows: readonly StatusRow[]) => rows.map(({ light, why }) => [light, ...why])

t.test('a link is no better than its worst alarm, and says it first', async (t) => {
  const other = { ...ROW, resource: 'country' } as StatusRow
  const idle = { ...ROW, peer: 'laptop', resource: null, light: 'amber', why: ['no task here'] } as StatusRow
  t.same(lights(withAlarms([ROW, other, idle], [])), lights([ROW, other, idle]))
  t.same(lights(withAlarms([ROW, other, idle], [ALARM])), [
    ['red', ALARM.text],
    ['green', 'proved equal just now'],
    ['amber', 'no task here'],
  ])
  const late: Alarm = { ...ALARM, code: 'no-success', level: 'warning', resource: '', text: 'no run has succeeded' }
  t.same(lights(withAlarms([ROW, other], [ALARM, late])), [
    ['red', ALARM.text, 'no run has succeeded'],
    ['amber', 'no run has succeeded'],
  ])
  const red = { ...ROW, light: 'red', why: ['101 records in quarantine'] } as StatusRow
  t.same(lights(withAlarms([red], [ALARM])), [['red', ALARM.text, '101 records in quarantine']])
  const broken: Alarm = { ...ALARM, code: 'capture-broken', peer: '', text: 'changes of city go unseen' }
  t.same(lights(withAlarms([ROW, other], [broken])), [
    ['red', 'changes of city go unseen'],
    ['green', 'proved equal just now'],
  ])
  const job: Alarm = { ...ALARM, code: 'job-failed', peer: '', text: 'the last run of job city has failed' }
  t.same(lights(withAlarms([ROW], [job])), lights([ROW]), 'a job is no resource, whatever its name')
  t.same(lights(withAlarms([ROW], [{ ...ALARM, level: 'info' }])), lights([ROW]))
})

t.test('an alarm is told in two lines: what is the matter, and what to do', async (t) => {
  const stdout = new PassThrough()
  const out = createOutput({ stdin: Readable.from([]), stdout, stderr: stdout }, false)
  t.equal(
    alarmLines(out, [ALARM, { ...ALARM, ended: new Date(Date.now() - 60_500).toISOString(), level: 'warning' }]),
    `critical  ${ALARM.text} (quarantine-growing, since 3 min ago)
          to mend: see why
warning   ${ALARM.text} (quarantine-growing, began 3 min ago, ended 1 min ago)
          to mend: see why`,
  )
})

t.test('the doctor fails for a critical alarm and warns of any other', async (t) => {
  t.match(alarmFindings([]), [{ state: 'ok' }])
  t.match(alarmFindings([ALARM, { ...ALARM, level: 'warning' }]), [
    { about: 'alarm quarantine-growing', state: 'fail', text: ALARM.text, mend: 'see why' },
    { state: 'warn' },
  ])
})
