import { type History, HISTORY_MINUTES } from '../../found.js'
import { preludeOf } from '../lua/prelude.js'
import type { Script } from '../script.js'

const KEYS = ['history'] as const

/** Returns for each queue how many tasks were done in each of the last minutes, and then how many attempts failed. */
export const history: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}
read_time()
local last, fields = math.floor(now / 60000), {}
for _, kind in ipairs({ 'd', 'f' }) do
  for minute = last - ${HISTORY_MINUTES - 1}, last do fields[#fields + 1] = kind .. number(minute) end
end

local all = {}
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  all[queue + 1] = redis.call('HMGET', keys_of(queue).history, unpack(fields))
end
return all
`
}

export function readHistory (queues: readonly string[], reply: unknown): Array<[queue: string, history: History]> {
  return (reply as Array<Array<string | null>>).map((texts, index) => {
    const counts = texts.map(text => Number(text) || 0)
    return [queues[index]!, { done: counts.slice(0, HISTORY_MINUTES), failed: counts.slice(HISTORY_MINUTES) }]
  })
}
