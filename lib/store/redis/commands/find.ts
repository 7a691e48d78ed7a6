import type { Found } from '../../found.js'
import { KEYS } from '../keys.js'
import { type Described, describing, readDescribed } from '../lua/describing.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { encode, localsOf, type Script } from '../script.js'

const PARAMS = { id: 'text', await_ms: 'number' } as const

/**
 * Finds a task. Takes the keys of the queues that may have it. Returns the number of its queue and its description. If
 * the task has not ended, its queue tells the listeners if it ends within `await_ms`.
 */
export const find: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${describing}
${localsOf(PARAMS)}read_time()
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  local task = describe_one(k, id, look_up(k, { id })[1])
  if task then
    if await_ms and task[5] == '' then
      redis.call('ZREMRANGEBYSCORE', k.awaited, '-inf', now)
      redis.call('ZADD', k.awaited, 'GT', now + await_ms, id)
      redis.call('PEXPIRE', k.awaited, number(math.max(await_ms, redis.call('PTTL', k.awaited))))
    end
    return { queue, task }
  end
end
`
}

export function encodeFind (id: string, awaitMs?: number): Array<string | number> {
  return encode(PARAMS, { id, await_ms: awaitMs ?? '' })
}

export function readFound (queues: readonly string[], reply: unknown): Found | undefined {
  if (reply === null) return undefined
  const [queue, described] = reply as [number, Described]
  return readDescribed(queues[queue]!, described)
}
