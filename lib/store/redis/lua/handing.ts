import { attempts } from './attempts.js'
import { burying } from './burying.js'
import { claiming, lending } from './claiming.js'
import { clock } from './clock.js'
import { leases } from './leases.js'
import { popping } from './line.js'

/** How many bytes of messages are handed over at most. What is longer is fetched. */
const MAX_HANDED_BYTES = 64 * 1024

/** For how long an entry of a consumer is kept that has not taken what was handed to it, in milliseconds. */
const FORGET_MS = 60 * 60 * 1000

/**
 * Hands tasks over to a consumer that waits with its next turn: the turn is taken for it, and it is told the reply. So
 * a lone task reaches an idle process without a call of that process. If the news are lost, the consumer takes its turn
 * when the heartbeat says so, and gets the same reply. Takes the prelude, and `queueing`. Leaves behind: `hand_over`.
 * What it needs is made within it, since most commits do not need it.
 */
export const handing = /* lua */ `
-- Returns the turn of a consumer that waits, if somebody listens for it and it has not missed a heartbeat.
local function waiting_turn (k, taker)
  local ok, parked = pcall(cmsgpack.unpack, redis.call('HGET', k.idle, taker))
  local is_turn = ok and type(parked) == 'table' and finite(parked.number) and finite(parked.at)
  if is_turn and parked.ids and now - parked.at < ${FORGET_MS} then return end
  local is_fit = is_turn and finite(parked.heartbeat) and finite(parked.lease_ms) and finite(parked.limit)
  local heard = redis.pcall('PUBSUB', 'NUMSUB', taker)
  if heard.err then return end
  if not is_fit or parked.ids or heard[2] == 0 then
    redis.call('HDEL', k.idle, taker)
  elseif now - parked.at <= parked.heartbeat * 1.5 then
    return parked
  end
end

-- Takes the turn of a consumer that waits. Returns whether that leaves nothing in line.
local function take_turn_of (queue, taker, parked)
  -- These fail before anything is written if a key is of another type.
  redis.call('HLEN', queue.attempts)
  redis.call('ZCARD', queue.running)
  if redis.call('LLEN', queue.suspects) > 0 then return false end
${popping}${attempts}${clock}${leases}${burying}
  local k, lease_ms, alone, reply_bytes = queue, parked.lease_ms, 0, ${MAX_HANDED_BYTES}
${lending}
  local lease_clock, paused = tick(k, parked.heartbeat)
  if paused then return false end
${claiming}
  claim(parked.limit)
  end_claim()
  if #claimed == 0 then return false end
  local taken = { number = parked.number, settled = {}, ids = claimed, fences = fences, at = now }
  redis.call('HSET', k.idle, taker, cmsgpack.pack(taken))
  redis.pcall('PUBLISH', taker, cjson.encode({ parked.number, leases }))
  return redis.call('LLEN', k.waiting) == 0
end

-- Hands what is in line over to a consumer that waits: of a few, to the one that was heard of last, which is the least
-- likely to be blocked or gone. Returns whether that leaves nothing in line.
local function hand_over (k)
  if not now then read_time() end
  local taker, turn
  for _, name in ipairs(redis.call('HRANDFIELD', k.idle, 3)) do
    local parked = waiting_turn(k, name)
    if parked and (not turn or parked.at > turn.at) then taker, turn = name, parked end
  end
  return turn and take_turn_of(k, taker, turn) or false
end
`
