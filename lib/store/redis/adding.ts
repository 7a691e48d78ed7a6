import { gathering, KEYS, moving, preludeOf, queueing, type Script } from './keys.js'

/** What is made of the arguments that describe tasks. */
export const reading = /* lua */ `
-- Reads tasks from ARGV: for each the number of its queue, its id, its message, and how to add it. Returns
-- lists of the last three, by queue.
local function read_tasks (first, count)
  local lists = {}
  for i = first, first + count * 4 - 1, 4 do
    local queue = tonumber(ARGV[i])
    local list = lists[queue] or {}
    lists[queue] = list
    append(list, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  end
  return lists
end

-- Returns what becomes of a task where its id is known: '' where its adder has not chosen the id.
local function mode_of (how)
  return how == '' and '' or string.match(how, '%a*$')
end

-- Returns when a task is due, 0 for at once, and when it expires, 0 for never. It says so in "due expires mode", or
-- in '' where it says none of them: milliseconds from now, or after an = those since the epoch; and milliseconds from now.
local function times_of (how)
  if how == '' then return 0, 0 end
  local is_at, ms, expires = string.match(how, '^(=?)([%d.-]*) ([%d.]*) ')
  if not now_us then read_time() end
  local due = tonumber(ms) and (is_at == '=' and 0 or now_us) + math.ceil(ms * 1000) or 0
  return due > now_us and due or 0, tonumber(expires) and now_us + math.ceil(expires * 1000) or 0
end
`

/** What adds tasks, of a list as `read_tasks` makes it. */
export const adding = /* lua */ `
-- Whether an id keeps others out although its task is done.
local function is_recent (k, id)
  local recent = redis.call('ZSCORE', k.recent, id)
  if recent and not now_us then read_time() end
  return recent and tonumber(recent) > now_us
end

-- Adds all tasks that are not known yet, one after the other, or none if something is wrong with a key. For
-- those that were not prepared it is decided here which are kept out.
local function add (k, list, is_chained)
  local known, entries, places = {}, {}, {}
  local function take (id, message, how)
    local mode = mode_of(how)
    if is_chained and (mode == 'keep' or mode == 'reject') and is_recent(k, id) then return end
    local due, expires = times_of(how)
    local is_new = redis.call('HSETNX', k.message, id, message) == 1
    if not is_new then
      if places[id] then
        if mode ~= 'replace' then return end
        entries[places[id]] = false
      else
        local is_dead, is_running = redis.call('ZSCORE', k.dead, id), redis.call('ZSCORE', k.running, id)
        if mode ~= 'replace' and (is_dead or is_running or not is_expired(k, id)) then return end
        if is_running then
          local p = look_up(k, { id })[1]
          keep_more(k, id, p, ' next', cmsgpack.pack({ message, due, expires }))
          redis.call('HSET', k.progress, id, progress(p, p.reason))
          return
        end
        if is_dead then redis.call('ZREM', k.dead, id) else unqueue(k, id) end
      end
      redis.call('HSET', k.message, id, message)
    end
    if not is_new then forget(k, { id }) elseif mode ~= '' then clear(k, { id }) end
    if expires > 0 then redis.call('ZADD', k.expiring, place_of(k.expiring, expires), id) end
    known[#known + 1] = id
    append(entries, id, due)
    places[id] = #entries - 1
  end
  local ok, failure = pcall(function ()
    for i = 1, #list, 3 do take(unpack(list, i, i + 2)) end
    enqueue(k, entries)
  end)
  if not ok then
    call_with('HDEL', k.message, known)
    error(failure)
  end
end
`

/** What is kept of a commit between its phases. */
const preparing = /* lua */ `
-- Whether one of these is known, or here twice.
local function is_any_known (k, ids)
  local seen = {}
  for i, message in ipairs(ask_for_each('HMGET', k.message, ids)) do
    if message or seen[ids[i]] then return true end
    seen[ids[i]] = true
  end
end

-- Returns whether it is kept, and not there or over already.
local function keep_prepared (k, commit, list, kept_out)
  return redis.call('HSETNX', k.prepared, commit, number(now or 0) .. ' ' .. cmsgpack.pack({ list, kept_out })) == 1
end

-- Returns the tasks of a commit, and the ids that it has kept out.
local function prepared_in (text)
  local at = text and string.find(text, ' ', 1, true)
  if not at or at == #text then return end
  local ok, _, prepared = pcall(cmsgpack.unpack_one, text, at)
  if ok and type(prepared) == 'table' and type(prepared[1]) == 'table' then return unpack(prepared) end
end

-- Leaves in the place of a commit what keeps out a call that comes late to prepare it once more.
local function keep_place (k, commit, text)
  redis.call('HSET', k.prepared, commit, string.match(text, '^%d+ ') or '0 ')
end
`

/** The ids in a list of tasks that others may want as well. */
export const reserving = /* lua */ `${preparing}
local function release (k, list)
  local ids = {}
  for i = 1, #list, 3 do
    if mode_of(list[i + 2]) ~= '' then append(ids, list[i]) end
  end
  call_with('HDEL', k.reserved, ids)
end
`

const PREPARE_KEYS = ['prepared', 'reserved', 'waiting', 'message', 'dead', 'recent', 'running', 'expiring'] as const

/** ARGV: an id, and a commit. Returns 1 while another commit is about to add the id. */
const reserved: Script = {
  keys: ['reserved'],
  body: /* lua */ `
local owner = redis.call('HGET', KEYS[1], ARGV[1])
return owner and owner ~= ARGV[2] and 1 or 0
`
}

/**
 * ARGV: for each piece of a commit its id, the number of its tasks, and those. Returns for each 0 and the
 * numbers of the queues and the ids that are kept out; 1 and one that is known, for which it is refused; 2, one that another
 * commit is about to add, and the number of its queue. What a commit or a rollback leaves in its place keeps out a prepare that
 * arrives after it.
 */
const prepare: Script = {
  keys: PREPARE_KEYS,
  body: /* lua */ `${gathering}${preludeOf(PREPARE_KEYS)}${moving}${reading}${adding}${reserving}
read_time()

local function is_known (k, id)
  if redis.call('HEXISTS', k.message, id) == 1 then
    if redis.call('ZSCORE', k.dead, id) or redis.call('ZSCORE', k.running, id) or not is_expired(k, id) then return true end
  end
  return is_recent(k, id)
end

-- A large commit is prepared in pieces, of which all but the first have a number behind their id.
local function whole (commit)
  return string.match(commit, '^[^:]*')
end

-- Returns the tasks of a list that are to be added, and which ids are kept out; or why none is.
local function decide (k, commit, list)
  local tasks, kept, places = {}, {}, {}
  for i = 1, #list, 3 do
    local id, mode = list[i], mode_of(list[i + 2])
    local owner = mode ~= '' and redis.call('HGET', k.reserved, id)
    if owner and owner ~= whole(commit) then return nil, { 2, id } end
    -- By another piece of this commit.
    local is_repeated = places[id] or owner or mode ~= '' and mode ~= 'replace' and is_known(k, id)
    if is_repeated and mode == 'reject' then return nil, { 1, id } end
    if is_repeated and mode == 'keep' then
      append(kept, id)
    else
      -- Later than what it replaces, which the commit makes of it.
      places[id] = true
      append(tasks, unpack(list, i, i + 2))
    end
  end
  return tasks, kept
end

local function has_own_ids (list)
  for i = 3, #list, 3 do
    if mode_of(list[i]) ~= '' then return true end
  end
end

local function prepare (commit, lists)
  local decided, kept_out = {}, { 0 }
  for queue, list in pairs(lists) do
    local k = keys_of(queue)
    if has_own_ids(list) then
      local known, kept = prepared_in(redis.call('HGET', k.prepared, commit))
      if not known then
        local tasks
        tasks, kept = decide(k, commit, list)
        if not tasks then
          kept[3] = queue
          return kept
        end
        decided[k] = { tasks, kept }
      end
      for _, id in ipairs(kept) do append(kept_out, queue, id) end
    else
      decided[k] = { list, {} }
    end
  end
  for k, tasks in pairs(decided) do
    -- Of a commit that is over nobody would release the ids.
    local is_kept = keep_prepared(k, commit, unpack(tasks))
    for i = 1, is_kept and #tasks[1] or 0, 3 do
      if mode_of(tasks[1][i + 2]) ~= '' then redis.call('HSET', k.reserved, tasks[1][i], whole(commit)) end
    end
  end
  return kept_out
end

local replies = {}
local arg = 1
while arg <= #ARGV do
  local count = tonumber(ARGV[arg + 1])
  append(replies, prepare(ARGV[arg], read_tasks(arg + 2, count)))
  arg = arg + 2 + count * 4
end
return replies
`
}

/**
 * ARGV: for each piece of a commit its id, and 1 if it was sent to be prepared more than once, so that the
 * last of them may be yet to come. KEYS: those of the queues that they add to.
 */
const commit: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${reading}${adding}${reserving}
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  for arg = 1, #ARGV, 2 do
    local id, repeated = unpack(ARGV, arg, arg + 1)
    local text = redis.call('HGET', k.prepared, id)
    local tasks = prepared_in(text)
    if tasks then
      -- First, since a full memory allows it, and then the rest.
      redis.call('HDEL', k.prepared, id)
      local ok, failure = pcall(add, k, tasks)
      if not ok then
        redis.call('HSET', k.prepared, id, text)
        return type(failure) == 'table' and failure or redis.error_reply(failure)
      end
      release(k, tasks)
      if repeated == '1' then keep_place(k, id, text) end
    end
  end
end
`
}

const NEW_KEYS = ['prepared', 'message', 'waiting', 'delayed', 'expiring'] as const

/**
 * Like `prepare`, for commits whose tasks all have ids of their own making, which nobody else wants.
 * Returns 3 and does nothing for one of which an id is known all the same.
 */
const prepareNew: Script = {
  keys: ['prepared', 'message'],
  body: /* lua */ `${gathering}${preludeOf(['prepared', 'message'])}${reading}${preparing}
local function prepare (commit, lists)
  for queue, list in pairs(lists) do
    local ids = {}
    for i = 1, #list, 3 do ids[#ids + 1] = list[i] end
    if is_any_known(keys_of(queue), ids) then return { 3 } end
  end
  for queue, list in pairs(lists) do keep_prepared(keys_of(queue), commit, list, {}) end
  return { 0 }
end

local replies = {}
local arg = 1
while arg <= #ARGV do
  local count = tonumber(ARGV[arg + 1])
  replies[#replies + 1] = prepare(ARGV[arg], read_tasks(arg + 2, count))
  arg = arg + 2 + count * 4
end
return replies
`
}

/** Like `commit`, for what `prepareNew` has prepared. Does nothing and returns 1 if one of the ids is known all the same. */
const commitNew: Script = {
  keys: NEW_KEYS,
  body: /* lua */ `${preludeOf(NEW_KEYS)}${queueing}${reading}${preparing}
local commits = {}
for arg = 1, #ARGV, 2 do commits[#commits + 1] = ARGV[arg] end

local batches = {}
for queue = 0, #KEYS / ${NEW_KEYS.length} - 1 do
  local k = keys_of(queue)
  local batch = { k = k, texts = redis.call('HMGET', k.prepared, unpack(commits)), found = {}, ids = {}, messages = {}, entries = {}, expiring = {} }
  for i, commit in ipairs(commits) do
    local list = prepared_in(batch.texts[i])
    if list then batch.found[#batch.found + 1] = commit end
    for j = 1, list and #list or 0, 3 do
      local id, message, how = unpack(list, j, j + 2)
      local due, expires = times_of(how)
      batch.ids[#batch.ids + 1] = id
      append(batch.messages, id, message)
      append(batch.entries, id, due)
      if expires > 0 then append(batch.expiring, place_of(k.expiring, expires), id) end
    end
  end
  if is_any_known(k, batch.ids) then return 1 end
  batches[#batches + 1] = batch
end

for _, batch in ipairs(batches) do
  local k = batch.k
  -- First, since a full memory allows it, and then the rest.
  call_with('HDEL', k.prepared, batch.found)
  local ok, failure = pcall(function ()
    call_with('HSET', k.message, batch.messages)
    call_with('ZADD', k.expiring, batch.expiring)
    enqueue(k, batch.entries)
  end)
  if not ok then
    call_with('HDEL', k.message, batch.ids)
    for i, commit in ipairs(commits) do
      if batch.texts[i] then redis.call('HSET', k.prepared, commit, batch.texts[i]) end
    end
    return type(failure) == 'table' and failure or redis.error_reply(failure)
  end
  for i, commit in ipairs(commits) do
    if ARGV[i * 2] == '1' and batch.texts[i] then keep_place(k, commit, batch.texts[i]) end
  end
end
`
}

/** ARGV: as for `commit`. KEYS: those of the queues that they would add to. */
const rollback: Script = {
  keys: PREPARE_KEYS,
  body: /* lua */ `${preludeOf(PREPARE_KEYS)}${reading}${reserving}
read_time()
for queue = 0, #KEYS / ${PREPARE_KEYS.length} - 1 do
  local k = keys_of(queue)
  for arg = 1, #ARGV, 2 do
    local tasks = prepared_in(redis.call('HGET', k.prepared, ARGV[arg]))
    redis.call('HDEL', k.prepared, ARGV[arg])
    if tasks then release(k, tasks) end
    redis.call('HSET', k.prepared, ARGV[arg], number(now) .. ' ')
  end
end
`
}

export const addingScripts = { prepareNew, commitNew, prepare, commit, rollback, reserved }
