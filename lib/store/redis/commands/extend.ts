import { CANCELLED_MS, FORGET_CONSUMER_MS, type Holding, type Pulse } from '../../heartbeat.js'
import type { Outlook } from '../../turn.js'
import { KEYS, MAX_MESSAGE_BYTES } from '../keys.js'
import { burying } from '../lua/burying.js'
import { clock, outlook } from '../lua/clock.js'
import { leases } from '../lua/leases.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { reserving } from '../lua/preparing.js'
import { reading } from '../lua/tasks.js'
import { encode, localsOf, type Script } from '../script.js'

const PARAMS = { in_doubt_ms: 'number' } as const

/** For how long a prepared commit is waited for, in milliseconds. Later nobody can know what was to become of it. */
const IN_DOUBT_MS = 60 * 60 * 1000

/**
 * The heartbeat. Takes the keys of each queue, and after the params for each queue the heartbeat's period, how long a
 * lease lasts, the name of the consumer, that of its turn, when it began to consume, its concurrency, the number of
 * leases, and for each lease its id and fence. Returns for each queue what `readPulses` reads.
 */
export const extend: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${reading}${reserving}${clock}${outlook}${leases}${burying}
${localsOf(PARAMS)}read_time()

-- Buries the tasks of a commit whose process has died before it could say what becomes of the request. Nobody knows
-- whether these tasks should run, so they do not, and are kept for somebody to look at.
local function bury_if_in_doubt (k, commit)
  local is_short = redis.call('HSTRLEN', k.prepared, commit) <= ${2 * MAX_MESSAGE_BYTES}
  local text = is_short and redis.call('HGET', k.prepared, commit)
  local since = finite(text and string.match(text, '^%d+'))
  local list = text and prepared_in(text)
  if not since or not list and #text > #string.match(text, '^%d+ ?') then
    error('the prepared commit ' .. string.sub(commit, 1, 99) .. ' is unreadable', 0)
  elseif since == 0 then
    redis.call('HSET', k.prepared, commit, number(now) .. string.sub(text, 2))
  elseif now - since >= in_doubt_ms then
    list = list or {}
    for j = 1, #list, 3 do
      local message, lane = list[j + 1], lane_of(list[j + 2])
      local is_in_place = not message and redis.call('HEXISTS', k.message, list[j]) == 1
      if is_in_place or message and redis.call('HSETNX', k.message, list[j], message) == 1 then
        if lane ~= '' then set_lane(k, list[j], lane) end
        bury(k, list[j], look_up(k, { list[j] })[1], 'its process died while it committed')
      end
    end
    redis.call('HDEL', k.prepared, commit)
    release(k, list)
  end
end

-- Looks at some commits of many, since most are gone a moment later.
local function bury_in_doubt (k, try)
  for _, commit in ipairs(redis.call('HRANDFIELD', k.prepared, 50)) do try(bury_if_in_doubt, k, commit) end
end

-- Drops ended tasks that are too old.
local function drop_old (k)
  local ids = redis.call('ZRANGEBYSCORE', k.ended, '-inf', now_us, 'LIMIT', 0, 1000)
  call_with('ZREM', k.ended, ids)
  call_with('HDEL', k.summary, ids)
end

-- Extends leases. Returns the ids of those that are lost, and of these the ones whose tasks were cancelled.
local function check_leases (k, arg, count, lease_clock)
  local ids, fences, lost, cancelled, kept = {}, {}, {}, {}, {}
  for i = 1, count do
    ids[i], fences[i] = ARGV[arg + 5 + i * 2], tonumber(ARGV[arg + 6 + i * 2])
  end
  for i, p in ipairs(look_up_running(k, ids)) do
    if holds(p, fences[i]) then
      append(kept, lease_end(lease_clock, ARGV[arg + 1], i, count), ids[i])
    else
      append(lost, ids[i])
      local since = redis.call('ZSCORE', k.revoked, number(fences[i]) .. ' ' .. ids[i])
      if since and tonumber(since) > now - ${CANCELLED_MS} then append(cancelled, ids[i]) end
    end
  end
  prolong(k, kept)
  return lost, cancelled
end

-- Notes a consumer and which leases it holds, at most 2000 of them, and forgets consumers that have been silent for
-- long: it looks at a few of them.
local function note_consumer (k, arg, count)
  local leases = { unpack(ARGV, arg + 7, arg + 6 + math.min(count, 2000) * 2) }
  local since, concurrency, heartbeat = tonumber(ARGV[arg + 4]), tonumber(ARGV[arg + 5]), tonumber(ARGV[arg])
  local packed = cmsgpack.pack({ now, leases, since, concurrency, heartbeat, count })
  redis.call('HSET', k.consumers, ARGV[arg + 2], packed)
  redis.call('PEXPIRE', k.consumers, ${FORGET_CONSUMER_MS})
  local some = redis.call('HRANDFIELD', k.consumers, 3, 'WITHVALUES')
  for i = 1, #some, 2 do
    local noted = unpacked(some[i + 1])
    if now - (noted and finite(noted[1]) or 0) > ${FORGET_CONSUMER_MS} then redis.call('HDEL', k.consumers, some[i]) end
  end
end

-- Whether something was handed to a consumer that has not taken it: the news of it may be lost. Notes of a consumer
-- that waits still that it was heard of.
local function is_handed (k, name)
  local packed = redis.call('HGET', k.idle, name)
  local turn = packed and unpacked(packed)
  if not turn or turn.ids then return turn end
  turn.at = now
  redis.call('HSET', k.idle, name, cmsgpack.pack(turn))
end

-- Carries out the heartbeat of one queue. A queue whose keys were tampered with does not stop the others, and a bad key
-- stops only the steps that need it.
local function beat (k, arg, count)
  local fault = ''
  local function try (run, ...)
    local results = { pcall(run, ...) }
    if results[1] then return unpack(results, 2) end
    fault = fault_of(results[2])
  end
  local lease_clock, paused, is_set_back = try(tick, k, tonumber(ARGV[arg]))
  if not lease_clock then return { { -1, 0, -1 }, {}, {}, fault } end
  local lost, cancelled = try(check_leases, k, arg, count, lease_clock)
  try(note_consumer, k, arg, count)
  try(bury_in_doubt, k, try)
  try(drop_old, k)
  if is_set_back and try(is_shared, k) then try(lanes().refresh_all, k) end
  local wake_in, suspects, slot_in = try(outlook, k, lease_clock, paused)
  if try(is_handed, k, ARGV[arg + 3]) then wake_in = 0 end
  return { { wake_in or -1, suspects or 0, slot_in or -1 }, lost or {}, cancelled or {}, fault }
end

local reply = {}
local arg = rest
while arg <= #ARGV do
  local count = tonumber(ARGV[arg + 6])
  local pulse = beat(keys_of(#reply), arg, count)
  -- A Redis that has become a replica extends no lease.
  if string.find(pulse[4], 'READONLY') then return redis.error_reply('READONLY it is a replica') end
  reply[#reply + 1] = pulse
  arg = arg + 7 + count * 2
end
return reply
`
}

/** @param turnOf returns the name of the turn of the consumer of a queue */
export function encodeHoldings (
  holdings: readonly Holding[], turnOf: (queue: string) => string
): Array<string | number> {
  const rest = holdings.flatMap(({ queue, consumer, leases, startedAt, concurrency, heartbeatMs, leaseMs }) => {
    const held = leases.flatMap(({ id, fence }) => [id, fence])
    const beat = Math.ceil(heartbeatMs)
    return [beat, leaseMs, consumer, turnOf(queue), startedAt, concurrency, leases.length, ...held]
  })
  return encode(PARAMS, { in_doubt_ms: IN_DOUBT_MS }, rest)
}

export function readPulses (reply: unknown): Pulse[] {
  return (reply as Array<[outlook: FlatOutlook, lost: string[], cancelled: string[], fault: string]>)
    .map(([outlook, lost, cancelled, fault]) =>
      ({ lost, cancelled, outlook: readOutlook(outlook), ...fault !== '' && { fault } }))
}

/** What the Lua function `outlook` returns. */
export type FlatOutlook = readonly [wakeInMs: number, suspects: number, slotInMs: number]

/** Reads what the Lua function `outlook` returns: -1 means that nothing is known to come. */
export function readOutlook ([wakeInMs, suspects, slotInMs]: FlatOutlook): Outlook {
  return {
    wakeInMs: wakeInMs >= 0 ? wakeInMs : Infinity, suspects: suspects > 0, ...slotInMs >= 0 && { slotInMs }
  }
}
