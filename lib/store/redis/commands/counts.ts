import type { QueueView } from '../../found.js'
import { KEYS } from '../keys.js'
import { type Described, describing, readDescribed } from '../lua/describing.js'
import { moving } from '../lua/moving.js'
import { pausing } from '../lua/pausing.js'
import { preludeOf } from '../lua/prelude.js'
import { preparing } from '../lua/preparing.js'
import { readLimits } from './keys.js'
import type { Script } from '../script.js'

/**
 * Returns for each queue the numbers of its waiting, delayed, running and dead tasks, 1 if it is paused, else 0, a
 * description of the task that would be claimed first, for how many milliseconds the queue rests, and its limits.
 */
export const counts: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${preparing}${describing}${pausing}
read_time()
local function first_of (k, due)
  local id = redis.call('LRANGE', k.suspects, 0, 0)[1]
  id = id or in_lane(k, lanes().first_ready(k) or '', 0, 1)[1] or in_lane(k, '', 0, 1)[1]
  id = id or id_in(redis.call('ZRANGE', k.lanes, 0, 0)[1] or '')
  if not id and due > 0 then id = redis.call('ZRANGE', k.delayed, 0, 0)[1] end
  return id and describe_one(k, id, look_up(k, { id })[1], 0, true) or false
end

local views = {}
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  local due = redis.call('ZCOUNT', k.delayed, '-inf', now_us)
  local length, stale = redis.call('LLEN', k.waiting), finite(redis.call('HGET', k.stale, ' ')) or 0
  local in_lines = math.max(0, length - math.max(0, stale)) + redis.call('ZCARD', k.lanes)
  local waiting = in_lines + redis.call('LLEN', k.suspects) + due
  views[#views + 1] = {
    waiting, redis.call('ZCARD', k.delayed) - due, redis.call('ZCARD', k.running), redis.call('ZCARD', k.dead),
    is_paused(k) and 1 or 0, waiting > 0 and first_of(k, due),
    math.max(0, math.ceil(((finite(redis.call('ZSCORE', k.resting, '')) or now_us) - now_us) / 1000)),
    redis.call('HGET', k.limits, '')
  }
end
return views
`
}

type View = [
  waiting: number, delayed: number, running: number, dead: number, paused: 0 | 1, first: Described | null,
  restMs: number, limits: string | null
]

/** Returns each queue and what is known of it. */
export function readCounts (queues: readonly string[], reply: unknown): Array<[queue: string, view: QueueView]> {
  return (reply as View[]).map(([waiting, delayed, running, dead, paused, first, restMs, text], index) => {
    const queue = queues[index]!
    const limits = readLimits(text)
    return [queue, {
      waiting,
      delayed,
      running,
      dead,
      paused: paused === 1,
      ...first !== null && { first: readDescribed(queue, first) },
      ...restMs > 0 && { restMs },
      ...limits !== undefined && { limits }
    }]
  })
}
