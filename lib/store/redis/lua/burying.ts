/** Makes dead letters of tasks. Takes the prelude; and from `attempts`, `counts_of`. Leaves behind: `bury`. */
export const burying = /* lua */ `
-- How many this script has buried: they die in this order.
local buried = 0
local function bury (k, id, p, reason)
  redis.call('HSET', k.attempts, id, counts_of(p, reason))
  redis.call('ZADD', k.dead, number(now_us + buried), id)
  buried = buried + 1
end
`

/** Drops dead letters. Takes the prelude; and from `moving`, `forget`. Leaves behind: `drop_dead`. */
export const dropping = /* lua */ `
-- Drops the oldest dead letters: those beyond so many, and those that are older than so many milliseconds. A bound
-- that is nil does not count. Drops a thousand at most, and returns how many.
local function drop_dead (k, count, ms)
  local surplus = count and math.max(0, redis.call('ZCARD', k.dead) - count) or 0
  if ms then surplus = math.max(surplus, redis.call('ZCOUNT', k.dead, '-inf', now_us - ms * 1000)) end
  local oldest = surplus > 0 and redis.call('ZRANGE', k.dead, 0, math.min(surplus, 1000) - 1) or {}
  call_with('ZREM', k.dead, oldest)
  call_with('HDEL', k.message, oldest)
  forget(k, oldest)
  return #oldest
end
`
