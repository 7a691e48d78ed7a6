import type { Tick, TickResult } from '../../schedules.js'
import type { Keep } from '../../turn.js'
import { KEYS } from '../keys.js'
import { adding } from '../lua/adding.js'
import { cancelling } from '../lua/cancelling.js'
import { moving } from '../lua/moving.js'
import { pausing } from '../lua/pausing.js'
import { preludeOf } from '../lua/prelude.js'
import { reserving } from '../lua/preparing.js'
import { recording } from '../lua/recording.js'
import { reading, termsOf } from '../lua/tasks.js'
import { encode, localsOf, type Script } from '../script.js'

const PARAMS = { keep_count: 'number', keep_ms: 'number' } as const

/** How many arguments describe one tick. An empty text stands for a slot that is missing, or the id of a task. */
const TICK_ARGS = 8

/**
 * Does what slots demand. The params are followed for each tick by the id of the schedule, the slot, the one that
 * follows, how many slots are passed over, what to do with an overlap, and the id, message and terms of the task.
 * Returns a result for each.
 */
export const tick: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${reading}${reserving}${adding}${cancelling}${recording}${pausing}
${localsOf(PARAMS)}read_time()
local k = keys_of(0)

local pausing

-- Makes way for the next task of a schedule. Returns whether it may be added.
local function make_way (task, overlap)
  if overlap == 'allow' or task == '' or #living(k, { task }) == 0 then return true end
  local is_running = redis.call('ZSCORE', k.running, task)
  if not is_running and is_expired(k, task) then return true end
  local due = finite(redis.call('ZSCORE', k.delayed, task))
  local p = look_up(k, { task })[1]
  local is_put_off = due and due > now_us and p.attempt + p.deferred > 0
  if overlap == 'skip' and not is_put_off then return false end
  cancel(k, { task }, keep_count, keep_ms)
  return true
end

-- Whether no task of this id waits, is delayed, runs or is dead.
local function is_free (id)
  if redis.call('HEXISTS', k.message, id) == 0 or placed_ids(k)[id] then return true end
  return not redis.call('ZSCORE', k.dead, id) and not redis.call('ZSCORE', k.running, id) and is_expired(k, id)
end

local function run (id, slot, next_slot, missed, overlap, task, message, terms)
  local score = redis.call('ZSCORE', k.schedules, id)
  if not score or slot ~= '' and (slot_of(score) ~= tonumber(slot) or pausing) then return 'over' end
  begin_writing(k, id)
  local r, result = record_of(k, id), 'missed'
  r.missed = r.missed + tonumber(missed)
  if task ~= '' then
    result = make_way(r.task, overlap) and is_free(task) and 'added' or 'skipped'
    if result == 'added' then
      add(k, { task, message, terms })
      r.task, r.at = task, now
    elseif slot ~= '' then
      r.skipped = r.skipped + 1
    end
  end
  if slot ~= '' then set_next(k, id, tonumber(next_slot)) end
  keep_record(k, id, r)
  return result
end

is_shared(k)
pausing = is_paused(k)
local results = {}
for i = rest, #ARGV, ${TICK_ARGS} do append(results, run(unpack(ARGV, i, i + ${TICK_ARGS - 1}))) end
return results
`
}

export function encodeTicks (ticks: readonly Tick[], { count, ms }: Keep): Array<string | number> {
  return encode(PARAMS, { keep_count: count, keep_ms: ms }, ticks.flatMap(tick => {
    const { id, slot = '', next = '', missed, overlap, task } = tick
    const added = task === undefined ? ['', '', ''] : [task.id, task.message, termsOf(task)]
    return [id, slot, next, missed, overlap, ...added]
  }))
}

export const readTicks = (reply: unknown): TickResult[] => reply as TickResult[]
