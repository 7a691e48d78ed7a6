import type { NewTask } from '../../tasks.js'

/** Describes tasks to scripts, which read them by `read_tasks`. */
export function encodeTasks (tasks: readonly NewTask[], queues: readonly string[]): Array<string | number> {
  return tasks.flatMap(task => [queues.indexOf(task.queue), task.id, task.message, termsOf(task)])
}

/** How many arguments describe one task. */
export const TASK_ARGS = 4

/** Says "due expires mode", or nothing where there is nothing to say. */
function termsOf ({ delayMs, runAt, expiresMs, onDuplicate }: NewTask): string {
  const terms = `${encodeDue(delayMs, runAt)} ${expiresMs ?? ''} ${onDuplicate ?? ''}`
  return terms === '  ' ? '' : terms
}

/** Milliseconds from now, or behind a = those since the epoch; or nothing, which is now. */
export function encodeDue (delayMs?: number, runAt?: number): string {
  return delayMs !== undefined ? String(delayMs) : runAt !== undefined ? `=${runAt}` : ''
}

/** How scripts read what `encodeTasks` says. */
export const reading = /* lua */ `
-- Reads tasks from ARGV: for each the number of its queue, its id, its message, and how to add it. Returns
-- lists of the last three, by queue.
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

-- Returns what becomes of a task where its id is known: '' where its adder has not chosen the id.
local function mode_of (terms)
  return terms == '' and '' or string.match(terms, '%a*$')
end

-- Returns when a task is due, 0 for at once, and when it expires, 0 for never. It says so in "due expires mode", or
-- in '' where it says none of them: milliseconds from now, or after an = those since the epoch; and milliseconds from now.
local function times_of (terms)
  if terms == '' then return 0, 0 end
  local is_at, ms, expires = string.match(terms, '^(=?)([%d.-]*) ([%d.]*) ')
  if not now_us then read_time() end
  local due = tonumber(ms) and (is_at == '=' and 0 or now_us) + math.ceil(ms * 1000) or 0
  return due > now_us and due or 0, tonumber(expires) and now_us + math.ceil(expires * 1000) or 0
end
`
