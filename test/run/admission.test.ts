import t from 'tap'
import { admission, type Admission, type Standing } from '../../lib/run/admission.js'

const standing: Standing = {
  isOpen: true, suspects: false, isShared: true, allowed: Infinity, isUnlimited: false, concurrency: 4, ahead: 0, running: 0, ready: 0
}

const begins = (claims: number, ahead = 0): Admission => ({ begins: true, claims, ahead, waits: false })
const nothing: Admission = { begins: false, claims: 0, ahead: 0, waits: false }
const suspect: Admission = { begins: false, claims: 'suspect', ahead: 0, waits: false }

const table: ReadonlyArray<[title: string, differences: Partial<Standing>, expected: Admission]> = [
  ['as many tasks as can run at once', {}, begins(4)],
  ['none beyond those that run', { running: 3 }, begins(1)],
  ['none where all room is taken', { running: 4 }, begins(0)],
  ['some ahead where tasks are short', { running: 4, ahead: 8 }, begins(8, 8)],
  ['some of them ahead where there is room for the others', { running: 3, ahead: 2 }, begins(3, 2)],
  ['none beyond those that are claimed already', { running: 4, ahead: 8, ready: 8 }, begins(0)],
  ['none where more is claimed than there is room for', { running: 4, ahead: 2, ready: 8 }, begins(0)],
  ['no more than is allowed', { allowed: 1 }, begins(1)],
  ['none where nothing is allowed, though what was claimed begins', { allowed: 0, ready: 2 }, begins(0)],
  ['and waits for more where it has nothing to do, and nobody has to ask it', { isUnlimited: true }, { ...begins(4), waits: true }],
  ['and does not wait while something runs', { isUnlimited: true, running: 1 }, begins(3)],
  ['nor while something is claimed', { isUnlimited: true, ready: 1 }, begins(3)],
  ['nothing where the consumer does not consume', { isOpen: false }, nothing],
  ['nothing beside a suspect, or one that waits', { isShared: false }, nothing],
  ['a suspect before anything else', { suspects: true, ready: 3 }, suspect],
  ['a suspect although another one runs or waits: the isolation decides', { suspects: true, isShared: false }, suspect],
  ['no suspect where nothing is allowed', { suspects: true, allowed: 0 }, nothing],
  ['no suspect where the consumer does not consume', { suspects: true, isOpen: false }, nothing]
]

t.test('a consumer claims', async t => {
  for (const [title, differences, expected] of table) t.strictSame(admission({ ...standing, ...differences }), expected, title)
})
