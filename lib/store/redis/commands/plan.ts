import type { ScheduleChange } from '../../schedules.js'
import { queueing } from '../lua/line.js'
import { preludeOf } from '../lua/prelude.js'
import { recording } from '../lua/recording.js'
import { encode, localsOf, type Script } from '../script.js'

const KEYS = ['schedules', 'schedule', 'waiting'] as const
const PARAMS = { revision: 'text' } as const

/** How many arguments describe one change: the id, flags, the plan that is expected, the new one, and the next slot. */
const CHANGE_ARGS = 5

/**
 * Changes schedules, and returns 1; or 0 if it changes none. The flags say by letters that there is a plan to expect
 * (e) or to keep (p), that the schedule is to be paused (1) or not (0), and that it is declared (d) or not (n).
 */
export const plan: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${queueing}${recording}${localsOf(PARAMS)}read_time()
local k = keys_of(0)
local stored = finite(redis.call('HGET', k.schedule, ' ')) or 0
if revision ~= '' and tonumber(revision) < stored then return 0 end
for i = rest, #ARGV, ${CHANGE_ARGS} do
  local id, flags, expected, _, next_slot = unpack(ARGV, i, i + ${CHANGE_ARGS - 1})
  local score = redis.call('ZSCORE', k.schedules, id)
  local known = score and (redis.call('HGET', k.schedule, '=' .. id) or '')
  if known ~= (string.find(flags, 'e', 1, true) and expected or false) then return 0 end
  local slot = tonumber(next_slot)
  if slot and slot <= now and slot ~= slot_of(score) then return 0 end
end
local declared, is_changed = {}, false
for _, id in ipairs(declared_in(k)) do declared[id] = true end
-- What makes no schedule is allowed when the memory is full: so its first write is one that Redis then allows.
local makes = false
for i = rest, #ARGV, ${CHANGE_ARGS} do makes = makes or not string.find(ARGV[i + 1], 'e', 1, true) end
if not makes then redis.call('HDEL', k.schedule, '') end
for i = rest, #ARGV, ${CHANGE_ARGS} do
  local id, flags, _, text, next_slot = unpack(ARGV, i, i + ${CHANGE_ARGS - 1})
  if string.find(flags, 'p', 1, true) then
    redis.call('HSET', k.schedule, '=' .. id, text)
    local r, paused = record_of(k, id), string.match(flags, '[01]')
    if paused then r.paused = paused == '1' end
    keep_record(k, id, r)
    set_next(k, id, not r.paused and tonumber(next_slot) or nil)
  else
    redis.call('HDEL', k.schedule, '=' .. id, '+' .. id)
    redis.call('ZREM', k.schedules, id)
  end
  local is_kept = string.find(flags, 'p', 1, true) and not string.find(flags, 'n', 1, true)
  local shall = is_kept and (declared[id] or string.find(flags, 'd', 1, true) ~= nil) or nil
  if declared[id] ~= shall then declared[id], is_changed = shall, true end
end
if is_changed then
  local ids = {}
  for id in pairs(declared) do ids[#ids + 1] = id end
  table.sort(ids)
  if #ids == 0 then
    redis.call('HDEL', k.schedule, '  ')
  else
    redis.call('HSET', k.schedule, '  ', table.concat(ids, '\\n'))
  end
end
if revision ~= '' and tonumber(revision) ~= stored then redis.call('HSET', k.schedule, ' ', revision) end
if #ARGV >= rest then wake(k) end
return 1
`
}

export function encodePlan (changes: readonly ScheduleChange[], revision?: number): Array<string | number> {
  return encode(PARAMS, { revision: revision ?? '' }, changes.flatMap(change => {
    const { id, expects, plan, next, paused, declared } = change
    const flags = [
      expects !== undefined && 'e', plan !== undefined && 'p', paused !== undefined && Number(paused),
      declared !== undefined && (declared ? 'd' : 'n')
    ]
    return [id, flags.filter(flag => flag !== false).join(''), expects ?? '', plan ?? '', next ?? '']
  }))
}
