import type { Limits } from '../../limits.js'
import type { Order } from '../../order.js'
import { PRIORITIES, type Priority } from '../../tasks.js'
import { KEYS } from '../keys.js'
import { cancelling } from '../lua/cancelling.js'
import { clock } from '../lua/clock.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { preparing } from '../lua/preparing.js'
import { encodeDue } from '../lua/tasks.js'
import { encode, localsOf, type Script } from '../script.js'

const PARAMS = {
  kind: 'text',
  all: 'number',
  due_at: 'text',
  keep_count: 'number',
  keep_ms: 'number',
  level: 'text',
  key: 'text',
  limits: 'text',
  rest_ms: 'number'
} as const

/**
 * Carries out an order on the tasks with the ids that follow the params, or if `all` is 1 on a thousand of all. Returns
 * how many tasks it has changed.
 */
export const operate: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${preparing}${cancelling}${clock}
${localsOf(PARAMS)}read_time()
local k = keys_of(0)
local ids = { unpack(ARGV, rest) }

-- Removes these ids from dead, or if all is 1 the first thousand. Returns those that were there.
local function undead ()
  if all == 1 then ids = redis.call('ZRANGE', k.dead, 0, 999) end
  local found = {}
  for _, id in ipairs(ids) do
    if redis.call('ZREM', k.dead, id) == 1 then append(found, id) end
  end
  return found
end

local orders = {}

function orders.cancel () return cancel(k, ids, keep_count, keep_ms) end

function orders.reschedule ()
  local changed = 0
  local is_at, ms = string.match(due_at, '^(=?)([%d.-]*)$')
  local due = ms == '' and 0 or (is_at == '=' and 0 or now_us) + math.ceil(ms * 1000)
  for _, id in ipairs(living(k, ids)) do
    local is_running = redis.call('ZSCORE', k.running, id)
    local is_suspect = look_up(k, { id })[1].suspect == 1
    if not is_running and not is_suspect then
      changed = changed + 1
      local was_delayed = redis.call('ZSCORE', k.delayed, id)
      if was_delayed or due > now_us then
        unqueue(k, id)
        enqueue(k, { id, math.max(0, due) })
      end
    end
  end
  return changed
end

function orders.redrive ()
  local found, entries = undead(), {}
  for i, p in ipairs(look_up(k, found)) do
    pardon(p)
    redis.call('HSET', k.attempts, found[i], counts_of(p, p.reason))
    append(entries, found[i], 0)
  end
  enqueue(k, entries)
  return #found
end

function orders.remove ()
  local found = undead()
  call_with('HDEL', k.message, found)
  forget(k, found)
  return #found
end

function orders.purge ()
  local found = redis.call('ZRANGE', k.delayed, 0, 999)
  call_with('ZREM', k.delayed, found)
  append(found, unpack(redis.call('LPOP', k.suspects, 1000) or {}))
  append(found, unpack((pop(k, 1000))))
  local members = redis.call('ZPOPMIN', k.lanes, 1000)
  for i = 1, #members, 2 do append(found, id_in(members[i])) end
  drop_stale(k)
  if is_shared(k) then lanes().refresh(k, '') end
  call_with('HDEL', k.message, found)
  forget(k, found)
  tell_end(k, found)
  return #found
end

-- Pausing a queue extends no lease, so it is no contact: the lease clock does not move on.
local function set_paused (paused)
  local contact, lease_clock = read_clock(k)
  write_clock(k, contact, lease_clock, paused)
  return 0
end

function orders.pause () return set_paused('1') end

function orders.resume ()
  set_paused('0')
  wake(k)
  return 0
end

function orders.prioritize ()
  local found = living(k, ids)
  for i, old in ipairs(ask_for_each('HMGET', k.lane, found)) do
    local id = found[i]
    local old_level, place, of = lane_in(old)
    if (old_level or '1') ~= level then
      local lane = (level ~= '1' or (of or '') ~= '') and level .. (of or '') or ''
      local is_in_line = not redis.call('ZSCORE', k.running, id) and not redis.call('ZSCORE', k.delayed, id) and
        look_up(k, { id })[1].suspect == 0
      if is_in_line then unqueue(k, id) end
      set_lane(k, id, lane)
      if is_in_line then put_last(k, { id }) end
    end
  end
  if #found > 0 then wake(k) end
  return #found
end

-- Sets the limits of a key, or of the queue if the key is ''. A queue without limits has no empty ones.
function orders.limit ()
  lanes().become_shared(k)
  if limits == '' or key == '' and limits == '{}' then
    redis.call('HDEL', k.limits, key)
  else
    redis.call('HSET', k.limits, key, limits)
  end
  lanes().forget_limits()
  lanes().refresh_all(k)
  lanes().refresh(k, key)
  wake(k)
  return 0
end

orders.limitKey = orders.limit

function orders.rest ()
  lanes().become_shared(k)
  if rest_ms > 0 then
    lanes().rest_until(k, key, now_us + rest_ms * 1000)
  else
    redis.call('ZREM', k.resting, key)
  end
  lanes().refresh(k, key)
  wake(k)
  return 0
end

is_shared(k)
return orders[kind]()
`
}

/** @param ids the ids of the order, or some of them; undefined means all tasks that the order may concern */
export function encodeOrder (order: Order, ids?: readonly string[]): Array<string | number> {
  const { count, ms } = order.kind === 'cancel' ? order.keep : { count: '', ms: '' } as const
  const due = order.kind === 'reschedule' ? encodeDue(order.delayMs, order.runAt) : ''
  const all = ids === undefined ? 1 : 0
  const { priority = 'normal', key = '', limits, ms: restMs = '' } = order as {
    priority?: Priority, key?: string, limits?: Limits, ms?: number
  }
  return encode(PARAMS, {
    kind: order.kind,
    all,
    due_at: due,
    keep_count: count,
    keep_ms: ms,
    level: PRIORITIES.indexOf(priority),
    key,
    limits: limits === undefined ? '' : JSON.stringify(limits),
    rest_ms: restMs
  }, ids)
}
