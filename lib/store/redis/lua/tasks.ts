import { type NewTask, PRIORITIES } from '../../tasks.js'

/** Returns the arguments that describe tasks to a script, which reads them with `read_tasks`. */
export function encodeTasks (tasks: readonly NewTask[], queues: readonly string[]): Array<string | number> {
  return tasks.flatMap(task => [queues.indexOf(task.queue), task.id, task.message, termsOf(task)])
}

/** How many arguments describe one task. */
export const TASK_ARGS = 4

/** Whether a task has a key or another level than normal. */
export const hasLane = ({ priority = 'normal', key }: NewTask): boolean => key !== undefined || priority !== 'normal'

/** Returns "due expires lane mode", or an empty text if the task has none of these. A lane is a level and a key. */
export function termsOf (task: NewTask): string {
  const { delayMs, runAt, expiresMs, onDuplicate, priority = 'normal', key = '' } = task
  const lane = hasLane(task) ? `${PRIORITIES.indexOf(priority)}${key}` : ''
  const terms = `${encodeDue(delayMs, runAt)} ${expiresMs ?? ''} ${lane} ${onDuplicate ?? ''}`
  return terms === '   ' ? '' : terms
}

/** Returns milliseconds from now, or = and milliseconds since the epoch; or an empty text, which means now. */
export function encodeDue (delayMs?: number, runAt?: number): string {
  return delayMs !== undefined ? String(delayMs) : runAt !== undefined ? `=${runAt}` : ''
}

/**
 * Reads what `encodeTasks` writes. Takes the prelude. Leaves behind: `read_tasks`, `mode_of`, `lane_of` and
 * `times_of`.
 */
export const reading = /* lua */ `
-- Reads tasks from ARGV. Each has there the number of its queue, its id, its message, and its terms. Returns lists of
-- the last three, by queue.
local function read_tasks (first, count)
  local lists = {}
  for i = first, first + count * ${TASK_ARGS} - 1, ${TASK_ARGS} do
    local queue = tonumber(ARGV[i])
    local list = lists[queue] or {}
    lists[queue] = list
    append(list, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  end
  return lists
end

-- Returns what to do with a task if its id is known: keep, reject or replace, or '' if its adder has not chosen the id.
local function mode_of (terms)
  return terms == '' and '' or string.match(terms, '%a*$')
end

-- Returns the lane of a task: its level and its key, or '' for the usual one.
local function lane_of (terms)
  return terms == '' and '' or string.match(terms, '^%S* %S* ([012].*) %a*$') or ''
end

-- Returns when a task is due, or 0 for at once, and when it expires, or 0 for never. The terms are "due expires lane
-- mode", or ''. Due is milliseconds from now, or = and milliseconds since the epoch. Expires is milliseconds from now.
local function times_of (terms)
  if terms == '' then return 0, 0 end
  local is_at, ms, expires = string.match(terms, '^(=?)([%d.-]*) ([%d.]*) ')
  if not now_us then read_time() end
  local due = tonumber(ms) and (is_at == '=' and 0 or now_us) + math.ceil(ms * 1000) or 0
  return due > now_us and due or 0, tonumber(expires) and now_us + math.ceil(expires * 1000) or 0
end
`
