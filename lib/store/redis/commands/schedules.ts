import type { ScheduleList, ScheduleView, WhichSchedules } from '../../schedules.js'
import { pausing } from '../lua/pausing.js'
import { preludeOf } from '../lua/prelude.js'
import { recording } from '../lua/recording.js'
import { encode, localsOf, type Script } from '../script.js'

const KEYS = ['schedules', 'schedule', 'clock'] as const
const PARAMS = { offset: 'number', limit: 'number', declared: 'number' } as const

/**
 * Lists a part of all schedules if `limit` is more than 0, those that are declared if `declared` is 1, or else those of
 * the ids that follow the params. Returns the time, the highest revision, 1 if the queue is paused, and for each
 * schedule its id, next slot, plan and record.
 */
export const schedules: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${recording}${pausing}${localsOf(PARAMS)}read_time()
local k = keys_of(0)
local views = {}
local function show (id, next_slot)
  local plan, record = unpack(redis.call('HMGET', k.schedule, '=' .. id, '+' .. id))
  local slot = slot_of(next_slot)
  append(views, { id, slot and string.format('%.17g', slot) or '', plan or '', record or '' })
end
local members = limit > 0 and redis.call('ZRANGE', k.schedules, offset, offset + limit - 1, 'WITHSCORES') or {}
for i = 1, #members, 2 do show(members[i], members[i + 1]) end
for _, id in ipairs(declared == 1 and declared_in(k) or { unpack(ARGV, rest) }) do
  local score = redis.call('ZSCORE', k.schedules, id)
  if score then show(id, score) end
end
return { now, finite(redis.call('HGET', k.schedule, ' ')) or 0, is_paused(k) and 1 or 0, views }
`
}

export function encodeSchedules (which: WhichSchedules): Array<string | number> {
  if ('ids' in which) return encode(PARAMS, { offset: 0, limit: 0, declared: 0 }, which.ids)
  if ('declared' in which) return encode(PARAMS, { offset: 0, limit: 0, declared: 1 })
  return encode(PARAMS, { ...which, declared: 0 })
}

export function readSchedules (reply: unknown): ScheduleList {
  type View = [id: string, next: string, plan: string, record: string]
  const [now, revision, isPaused, views] = reply as [number, number, 0 | 1, View[]]
  return { now, revision, isPaused: isPaused === 1, schedules: views.map(viewOf) }
}

function viewOf ([id, next, plan, record]: readonly [string, string, string, string]): ScheduleView {
  const [, at, skipped, missed, paused, taskId] = /^(\d+) (\d+) (\d+) ([01]) (.*)$/.exec(record) ?? []
  return {
    id,
    plan,
    ...next !== '' && { next: Number(next) },
    paused: paused === '1',
    ...taskId !== undefined && taskId !== '' && { last: { taskId, at: Number(at) } },
    skipped: Number(skipped ?? 0),
    missed: Number(missed ?? 0)
  }
}
