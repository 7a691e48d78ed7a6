import { type Found, SHOWN_BYTES } from '../../found.js'
import { KEYS } from '../keys.js'
import { type Described, describing, readDescribed } from '../lua/describing.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { preparing } from '../lua/preparing.js'
import { encode, localsOf, type Script } from '../script.js'

const PARAMS = { id: 'text', await_ms: 'number' } as const

/**
 * Finds a task. Takes the keys of the queues that may have it. Returns the number of its queue, its description,
 * whether that has the whole message, and the name of the consumer that runs it. If the task has not ended, its queue
 * tells the listeners if it ends within `await_ms`.
 */
export const find: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${preparing}${describing}
${localsOf(PARAMS)}read_time()
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  local p = look_up(k, { id })[1]
  local task, length = describe_one(k, id, p, ${SHOWN_BYTES})
  if task then
    local is_awaited = await_ms and task[5] == ''
    if is_awaited then
      -- Who waits for the end is spared what only a look is for. There may be thousands, and they look again.
      task[3] = head_of(task[3])
      redis.call('ZREMRANGEBYSCORE', k.awaited, '-inf', now)
      redis.call('ZADD', k.awaited, 'GT', now + await_ms, id)
      redis.call('PEXPIRE', k.awaited, number(math.max(await_ms, redis.call('PTTL', k.awaited))))
    end
    local is_whole = not is_awaited and length > 0 and length <= ${SHOWN_BYTES}
    local is_running = not is_awaited and task[2] == 'running'
    return { queue, task, is_whole and 1 or 0, is_running and holder_of(k, id, p.fence) or '' }
  end
end
`
}

export function encodeFind (id: string, awaitMs?: number): Array<string | number> {
  return encode(PARAMS, { id, await_ms: awaitMs ?? '' })
}

export function readFound (queues: readonly string[], reply: unknown): Found | undefined {
  if (reply === null) return undefined
  const [queue, described, isWhole, consumer] = reply as [number, Described, 0 | 1, string]
  return {
    ...readDescribed(queues[queue]!, described),
    ...isWhole === 1 && { isWhole: true },
    ...consumer !== '' && { consumer }
  }
}
