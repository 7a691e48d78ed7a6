import { FORGET_CONSUMER_MS, type Presence, SHOWN_LEASES } from '../../heartbeat.js'
import { attempts } from '../lua/attempts.js'
import { preludeOf } from '../lua/prelude.js'
import type { Script } from '../script.js'

const KEYS = ['consumers'] as const

/** How many consumers of a queue are returned. */
const MOST = 1000

/** Returns for each queue what `note_consumer` has noted of each of its consumers. */
export const consumers: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${attempts}
read_time()
local function present (k)
  local list, entries = {}, redis.call('HGETALL', k.consumers)
  for i = 1, #entries, 2 do
    local noted = unpacked(entries[i + 1])
    local at = noted and finite(noted[1])
    if at and now - at <= ${FORGET_CONSUMER_MS} and #list < ${MOST} then
      local leases, ids = type(noted[2]) == 'table' and noted[2] or {}, {}
      for j = 1, math.min(#leases, ${SHOWN_LEASES * 2}), 2 do ids[#ids + 1] = tostring(leases[j]) end
      list[#list + 1] = {
        entries[i], math.max(0, now - at), finite(noted[3]) or 0, finite(noted[4]) or 0, finite(noted[5]) or 0,
        finite(noted[6]) or 0, ids
      }
    end
  end
  return list
end

local all = {}
for queue = 0, #KEYS / ${KEYS.length} - 1 do all[queue + 1] = present(keys_of(queue)) end
return all
`
}

type Noted = [
  consumer: string, silentMs: number, startedAt: number, concurrency: number, heartbeatMs: number, held: number,
  taskIds: string[]
]

export function readConsumers (queues: readonly string[], reply: unknown): Presence[] {
  return (reply as Noted[][]).flatMap((list, index) =>
    list.map(([consumer, silentMs, startedAt, concurrency, heartbeatMs, held, taskIds]) => (
      { queue: queues[index]!, consumer, silentMs, startedAt, concurrency, heartbeatMs, held, taskIds }
    )))
}
