import type { Found, State } from '../../found.js'
import { KEYS } from '../keys.js'
import { type Described, describing, readDescribed } from '../lua/describing.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { preparing } from '../lua/preparing.js'
import { encode, localsOf, type Script } from '../script.js'

const PARAMS = { state: 'text', offset: 'number', limit: 'number', max_bytes: 'number' } as const
const MORE_PARAMS = { state: 'text', max_bytes: 'number' } as const

/** Returns descriptions of tasks of one state, and the ids of those for which the reply had no more room. */
export const list: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${preparing}${describing}
${localsOf(PARAMS)}read_time()

local k = keys_of(0)
local last = offset + limit - 1
local ids = {}
if limit == 0 then return { {}, {} } end
if state == 'waiting' then
  local stale = math.max(0, finite(redis.call('HGET', k.stale, ' ')) or 0)
  local without_key = redis.call('LLEN', k.waiting) - stale + redis.call('ZLEXCOUNT', k.lanes, range_of(''))
  local function part_of (command, key)
    return function (from, count) return redis.call(command, key, from, from + count - 1) end
  end
  local function members (from, count)
    local found = redis.call('ZRANGEBYLEX', k.lanes, '(\\1', '+', 'LIMIT', from, count)
    for i, member in ipairs(found) do found[i] = id_in(member) end
    return found
  end
  local places = {
    { redis.call('LLEN', k.suspects), part_of('LRANGE', k.suspects) },
    { without_key, function (from, count) return in_lane(k, '', from, count) end },
    { redis.call('ZLEXCOUNT', k.lanes, '(\\1', '+'), members },
    { redis.call('ZCARD', k.delayed), part_of('ZRANGE', k.delayed) }
  }
  local skip = offset
  for _, place in ipairs(places) do
    if #ids < limit and skip < place[1] then append(ids, unpack(place[2](skip, limit - #ids))) end
    skip = math.max(0, skip - place[1])
  end
elseif state == 'delayed' then
  ids = redis.call('ZRANGEBYSCORE', k.delayed, '(' .. number(now_us), '+inf', 'LIMIT', offset, limit)
elseif state == 'running' then
  ids = redis.call('ZRANGE', k.running, offset, last)
elseif state == 'dead' then
  ids = redis.call('ZREVRANGE', k.dead, offset, last)
else
  for _, id in ipairs(redis.call('ZRANGE', k.ended, '+inf', '(' .. number(now_us), 'BYSCORE', 'REV')) do
    -- If the id is taken again, it belongs to another task.
    local is_free = redis.call('HEXISTS', k.message, id) == 0 or is_prepared(k, id, look_up(k, { id })[1])
    local is_meant = is_free and ended_in(record_of(k, id)) == state
    if is_meant then append(ids, id) end
  end
  ids = { unpack(ids, offset + 1, math.min(offset + limit, #ids)) }
end
return describe(k, ids, state, max_bytes)
`
}

/** Goes on with a list. Takes the ids that are left, and returns what `list` does of those in the state. */
export const listMore: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${preparing}${describing}
${localsOf(MORE_PARAMS)}read_time()
return describe(keys_of(0), { unpack(ARGV, rest) }, state, max_bytes)
`
}

export function encodeList (state: State, offset: number, limit: number, maxBytes: number): Array<string | number> {
  return encode(PARAMS, { state, offset, limit, max_bytes: maxBytes })
}

export function encodeListMore (state: State, maxBytes: number, ids: readonly string[]): Array<string | number> {
  return encode(MORE_PARAMS, { state, max_bytes: maxBytes }, ids)
}

export function readList (
  queue: string, reply: unknown
): { readonly found: Found[], readonly left: readonly string[] } {
  const [described, left] = reply as [Described[], string[]]
  return { found: described.map(task => readDescribed(queue, task)), left }
}
