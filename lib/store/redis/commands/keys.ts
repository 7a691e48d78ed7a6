import type { KeyLimits, KeyView, Limits } from '../../limits.js'
import { KEYS } from '../keys.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { encode, localsOf, type Script } from '../script.js'

const PARAMS = { after: 'text', limit: 'number' } as const

/**
 * Returns the keys behind one of which tasks wait or run: each with how many wait, how many run, for how many
 * milliseconds it rests, and its own limits. It goes from key to key, however many tasks each of them has.
 */
export const keys: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}
${localsOf(PARAMS)}read_time()
local k = keys_of(0)
local function next_in (set)
  local member = redis.call('ZRANGEBYLEX', set, '(' .. after .. '\\1', '+', 'LIMIT', 0, 1)[1]
  return member and string.match(member, '^[^%z]*')
end

local views = {}
while #views < limit do
  local waiting, running = next_in(k.lanes), next_in(k.holding)
  if not waiting and not running then break end
  after = waiting and running and (waiting < running and waiting or running) or waiting or running
  local left = 0
  for _, set in ipairs({ k.resting, k.pacing }) do
    left = math.max(left, (finite(redis.call('ZSCORE', set, after)) or now_us) - now_us)
  end
  append(views, {
    after, redis.call('ZLEXCOUNT', k.lanes, range_of(after)), redis.call('ZLEXCOUNT', k.holding, range_of(after)),
    math.ceil(left / 1000), redis.call('HGET', k.limits, after)
  })
end
return views
`
}

export function encodeKeys (after: string, limit: number): Array<string | number> {
  return encode(PARAMS, { after, limit })
}

export function readKeys (reply: unknown): KeyView[] {
  type View = [key: string, waiting: number, running: number, restMs: number, limits: string | null]
  return (reply as View[]).map(([key, waiting, running, restMs, text]) => {
    const limits: KeyLimits | undefined = readLimits(text)
    return { key, waiting, running, restMs, ...limits !== undefined && { limits } }
  })
}

/** Reads limits as they are kept, in JSON; undefined if there are none, or they are unreadable. */
export function readLimits (text: string | null): Limits | undefined {
  if (text === null) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}
