import type { Counts } from '../../found.js'
import { KEYS } from '../keys.js'
import { preludeOf } from '../lua/prelude.js'
import type { Script } from '../script.js'

/** Returns the numbers of waiting, delayed, running and dead tasks, and 1 if the queue is paused, else 0. */
export const counts: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}
read_time()
local k = keys_of(0)
local due = redis.call('ZCOUNT', k.delayed, '-inf', now_us)
local in_line, stale = redis.call('LLEN', k.waiting), finite(redis.call('HGET', k.stale, ' ')) or 0
local waiting = math.max(0, in_line - math.max(0, stale)) + redis.call('LLEN', k.suspects)
local paused = string.match(redis.call('GET', k.clock) or '', '^%d+ %d+ (%d)')
local delayed = redis.call('ZCARD', k.delayed) - due
return { waiting + due, delayed, redis.call('ZCARD', k.running), redis.call('ZCARD', k.dead), tonumber(paused or 0) }
`
}

export function readCounts (reply: unknown): Counts & { paused: boolean } {
  const [waiting, delayed, running, dead, paused] = reply as [number, number, number, number, 0 | 1]
  return { waiting, delayed, running, dead, paused: paused === 1 }
}
