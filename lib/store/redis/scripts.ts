import { commit } from './commands/commit.js'
import { commitNew } from './commands/commit-new.js'
import { consumers } from './commands/consumers.js'
import { counts } from './commands/counts.js'
import { extend } from './commands/extend.js'
import { find } from './commands/find.js'
import { history } from './commands/history.js'
import { keys } from './commands/keys.js'
import { leave } from './commands/leave.js'
import { list, listMore } from './commands/list.js'
import { operate } from './commands/operate.js'
import { part } from './commands/part.js'
import { plan } from './commands/plan.js'
import { prepare } from './commands/prepare.js'
import { prepareNew } from './commands/prepare-new.js'
import { reserved } from './commands/reserved.js'
import { rollback } from './commands/rollback.js'
import { schedules } from './commands/schedules.js'
import { setProgress } from './commands/set-progress.js'
import { slice } from './commands/slice.js'
import { tick } from './commands/tick.js'
import { turn } from './commands/turn.js'
import { vote } from './commands/vote.js'
import type { Script } from './script.js'

/** All scripts, by the names under which they are called. */
export const scripts = {
  commit,
  commitNew,
  consumers,
  counts,
  extend,
  find,
  history,
  keys,
  leave,
  list,
  listMore,
  operate,
  part,
  plan,
  prepare,
  prepareNew,
  reserved,
  rollback,
  schedules,
  setProgress,
  slice,
  tick,
  turn,
  vote
} satisfies Record<string, Script>

export type ScriptName = keyof typeof scripts
