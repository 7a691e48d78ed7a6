import { scripts } from '../../../lib/store/redis/scripts.js'

// One clock for all stores, which stands still until it is moved. Import this before anything that imports
// the Redis store, which takes the scripts as it finds them.

const KEY = 'virtual time'
const TIME = `(function ()
  local ms = tonumber(redis.call('GET', '${KEY}'))
  return { math.floor(ms / 1000), ms % 1000 * 1000 }
end)()`

for (const [name, script] of Object.entries(scripts)) {
  const body = script.body.replaceAll("redis.call('TIME')", TIME)
  if (script.body.includes('now_us') && body === script.body) throw new Error(`the script ${name} reads another clock`)
  Object.assign(script, { body })
}

export const START_MS = 1_800_000_000_000
let nowMs = START_MS

interface Client { set (key: string, value: number): Promise<unknown> }

/** Moves the clock of this process on, and that of Redis before its next command. */
export function passTime (ms: number, redis: Client): void {
  nowMs += ms
  redis.set(KEY, nowMs).catch(() => {})
}

/** Has this process live by the virtual clock, from its start, for as long as `run` takes. */
export async function inVirtualTime<T> (run: () => Promise<T>): Promise<T> {
  const { now } = performance
  const { now: dateNow } = Date
  nowMs = START_MS
  Object.assign(performance, { now: () => nowMs - START_MS + 1000 })
  Object.assign(Date, { now: () => nowMs })
  try {
    return await run()
  } finally {
    Object.assign(performance, { now })
    Object.assign(Date, { now: dateNow })
  }
}
