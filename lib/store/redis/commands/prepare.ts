import { adding } from '../lua/adding.js'
import { moving } from '../lua/moving.js'
import { gathering, preludeOf } from '../lua/prelude.js'
import { reserving } from '../lua/preparing.js'
import { reading, TASK_ARGS } from '../lua/tasks.js'
import type { Script } from '../script.js'

/** The keys that `prepare` and `rollback` take of each queue. */
export const PREPARE_KEYS = [
  'prepared', 'reserved', 'waiting', 'message', 'dead', 'recent', 'running', 'expiring'
] as const

/**
 * Prepares pieces of commits. Takes for each piece its id, the number of its tasks, and the tasks, as `encodeTasks`
 * writes them. Returns for each piece one of these:
 *
 * - 0, and for each id that is kept out the number of its queue and the id;
 * - 1, and a known id for which the commit is refused;
 * - 2, an id that another commit is about to add, and the number of its queue.
 *
 * What a commit or a rollback leaves in its place keeps out a prepare that arrives after it.
 */
export const prepare: Script = {
  keys: PREPARE_KEYS,
  body: /* lua */ `${gathering}${preludeOf(PREPARE_KEYS)}${moving}${reading}${reserving}${adding}
read_time()

-- Whether a task of this id keeps others out. One that is only prepared does not.
local function is_known (k, id)
  if redis.call('HEXISTS', k.message, id) == 1 and not placed_ids(k)[id] then
    local is_dead_or_running = redis.call('ZSCORE', k.dead, id) or redis.call('ZSCORE', k.running, id)
    if is_dead_or_running or not is_expired(k, id) then return true end
  end
  return is_recent(k, id)
end

-- Returns the id of a whole commit. A large commit is prepared in pieces, and all but the first have a number behind
-- that id.
local function whole (commit)
  return string.match(commit, '^[^:]*')
end

-- Keeps a prepared commit. Returns whether it does: not if the commit is there already, or over.
local function keep_prepared (k, commit, list, kept_out)
  return redis.call('HSETNX', k.prepared, commit, number(now) .. ' ' .. cmsgpack.pack({ list, kept_out })) == 1
end

-- Returns the tasks of a list to add and the ids that are kept out; or nil and the reply that says why none is added.
local function decide (k, commit, list)
  local tasks, kept, places = {}, {}, {}
  for i = 1, #list, 3 do
    local id, mode = list[i], mode_of(list[i + 2])
    local owner = mode ~= '' and redis.call('HGET', k.reserved, id)
    if owner and owner ~= whole(commit) then return nil, { 2, id } end
    -- An owner is now another piece of this commit.
    local is_repeated = places[id] or owner or mode ~= '' and mode ~= 'replace' and is_known(k, id)
    if is_repeated and mode == 'reject' then return nil, { 1, id } end
    if is_repeated and mode == 'keep' then
      append(kept, id)
    else
      -- A task that replaces an earlier one of its commit is kept behind that one. The commit does the replacing.
      places[id] = true
      append(tasks, unpack(list, i, i + 2))
    end
  end
  return tasks, kept
end

-- Whether the adder has chosen the id of any task in a list.
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
    -- If the commit is over, nobody would release its ids.
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
  arg = arg + 2 + count * ${TASK_ARGS}
end
return replies
`
}
