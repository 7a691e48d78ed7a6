/**
 * Adds tasks. Takes the prelude; from `moving`, `look_up`, `counts_of`, `keep_more`, `is_expired`, `clear`, `forget`,
 * `place_of`, `place_all`, `unqueue`, `is_shared`, `set_lane` and `wake`; from `reading`, `mode_of`, `lane_of` and
 * `times_of`; and from `reserving`, `oust`. Leaves behind: `is_recent`, and `add`, whose list is like those that
 * `read_tasks` returns.
 */
export const adding = /* lua */ `
-- Whether an id keeps other tasks out although its own task is done.
local function is_recent (k, id)
  local recent = redis.call('ZSCORE', k.recent, id)
  if recent and not now_us then read_time() end
  return recent and tonumber(recent) > now_us
end

-- Adds all tasks that are not known yet, one after the other, or none if something is wrong with a key. Chained
-- tasks were not prepared, so this decides which of them are kept out.
local function add (k, list, is_chained)
  local known, entries, places, is_news = {}, {}, {}, false
  -- Puts in line what was taken.
  local function flush ()
    is_news = place_all(k, entries) or is_news
    for i = 1, #entries, 2 do
      if entries[i] then places[entries[i]] = 0 end
    end
    entries = {}
  end
  local function take (id, message, how)
    local mode = mode_of(how)
    if is_chained and (mode == 'keep' or mode == 'reject') and is_recent(k, id) then return end
    local due, expires = times_of(how)
    -- It may be in place already.
    local is_new = not message or redis.call('HSETNX', k.message, id, message) == 1
    if not is_new then
      if places[id] then
        if mode ~= 'replace' then return end
        if places[id] == 0 then unqueue(k, id) else entries[places[id]] = false end
      -- Nobody sees a task that is only prepared.
      elseif not oust(k, id) then
        local is_dead, is_running = redis.call('ZSCORE', k.dead, id), redis.call('ZSCORE', k.running, id)
        if mode ~= 'replace' and (is_dead or is_running or not is_expired(k, id)) then return end
        if is_running then
          local p = look_up(k, { id })[1]
          keep_more(k, id, p, ' next', cmsgpack.pack({ message, due, expires, lane_of(how) }))
          redis.call('HSET', k.attempts, id, counts_of(p, p.reason))
          return
        end
        if is_dead then redis.call('ZREM', k.dead, id) else unqueue(k, id) end
      end
      redis.call('HSET', k.message, id, message)
    end
    if not is_new then forget(k, { id }) elseif mode ~= '' then clear(k, { id }) end
    if lane_of(how) ~= '' then set_lane(k, id, lane_of(how)) end
    if expires > 0 then redis.call('ZADD', k.expiring, place_of(k.expiring, expires), id) end
    if message then known[#known + 1] = id end
    append(entries, id, due)
    places[id] = #entries - 1
    -- The order among lanes is that in which tasks come into them.
    if is_shared(k) then flush() end
  end
  local ok, failure = pcall(function ()
    is_shared(k)
    for i = 1, #list, 3 do take(unpack(list, i, i + 2)) end
    flush()
  end)
  if ok and is_news then wake(k) end
  if not ok then
    call_with('HDEL', k.message, known)
    error(failure)
  end
end
`
