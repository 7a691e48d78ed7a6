import type { ScheduleList, ScheduleView, WhichSchedules } from '../../schedules.js'
import { preludeOf } from '../lua/prelude.js'
import { recording } from '../lua/recording.js'
import { encode, localsOf, type Script } from '../script.js'

const KEYS = ['schedules', 'schedule'] as const
const PARAMS = { offset: 'number', limit: 'number' } as const

/**
 * Lists the schedules of the ids that follow the params, or if `limit` is more than 0 a part of all. Returns the time,
 * the highest revision, and for each schedule its id, next slot, plan and record.
 */
export const schedules: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${recording}${localsOf(PARAMS)}read_time()
local k = keys_of(0)
local views = {}
local function show (id, next_slot)
  local plan, record = unpack(redis.call('HMGET', k.schedule, '=' .. id, '+' .. id))
  local slot = slot_of(next_slot)
  append(views, { id, slot and string.format('%.17g', slot) or '', plan or '', record or '' })
end
local members = limit > 0 and redis.call('ZRANGE', k.schedules, offset, offset + limit - 1, 'WITHSCORES') or {}
for i = 1, #members, 2 do show(members[i], members[i + 1]) end
for i = rest, #ARGV do
  local score = redis.call('ZSCORE', k.schedules, ARGV[i])
  if score then show(ARGV[i], score) end
end
return { now, finite(redis.call('HGET', k.schedule, ' ')) or 0, views }
`
}

export function encodeSchedules (which: WhichSchedules): Array<string | number> {
  return 'ids' in which ? encode(PARAMS, { offset: 0, limit: 0 }, which.ids) : encode(PARAMS, which)
}

export function readSchedules (reply: unknown): ScheduleList {
  type View = [id: string, next: string, plan: string, record: string]
  const [now, revision, views] = reply as [number, number, View[]]
  return { now, revision, schedules: views.map(viewOf) }
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
