import type { NewTask } from '../../tasks.js'
import { gathering, preludeOf } from '../lua/prelude.js'
import { termsOf } from '../lua/tasks.js'
import type { Script } from '../script.js'

const KEYS = ['prepared', 'message'] as const

/**
 * Prepares pieces of commits whose ids nobody has chosen, so that no other commit wants them. It puts the messages in
 * their places, where they stay invisible until the ids are in line. Takes what `encodeNew` returns. Returns the names
 * of the pieces of which an id is known all the same, and which are not prepared in that queue. What a commit or a
 * rollback leaves in its place keeps out a call that arrives after it.
 */
export const prepareNew: Script = {
  keys: KEYS,
  body: /* lua */ `${gathering}${preludeOf(KEYS)}
local function every_second (first, last)
  local names = {}
  for i = first, last, 2 do names[#names + 1] = ARGV[i] end
  return names
end

-- Sets fields of a hash, of which ARGV has the names and the values, unless the hash has any of them. Returns whether
-- it has set them.
local function set_new (key, first, last)
  if last == first + 1 then return redis.call('HSETNX', key, ARGV[first], ARGV[last]) == 1 end
  local names, added = every_second(first, last), 0
  for _, value in ipairs(ask_for_each('HMGET', key, names)) do
    if value then return false end
  end
  for i = first, last, 1000 do
    added = added + redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, last)))
  end
  if added < #names then call_with('HDEL', key, names) end
  return added == #names
end

-- Prepares all these pieces or none. Returns why it prepares none: one of them is there already, or an id is known.
local function prepare (k, first, last, first_task, last_task)
  if not set_new(k.prepared, first, last) then return 'there' end
  local ok, is_set = pcall(set_new, k.message, first_task, last_task)
  if ok and is_set then return end
  call_with('HDEL', k.prepared, every_second(first, last))
  if not ok then error(is_set) end
  return 'known'
end

local known, arg = {}, 1
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k, first = keys_of(queue), arg + 1
  local last = arg + 2 * ARGV[arg]
  local at = last + 2
  local last_task = last + 1 + 2 * ARGV[last + 1]
  arg = last_task + 1
  if first <= last and prepare(k, first, last, at, last_task) then
    for i = first, last, 2 do
      local _, lines = string.gsub(ARGV[i + 1], '\\n', '')
      local count = lines - 1
      if prepare(k, i, i + 1, at, at + count * 2 - 1) == 'known' then append(known, ARGV[i]) end
      at = at + count * 2
    end
  end
end
return known
`
}

/** A piece of a commit: its name, and its tasks. */
interface NewPiece { readonly id: string, readonly tasks: readonly NewTask[] }

/**
 * Returns for each queue the number of its pieces, and of each the name and what is kept of it; and then the number of
 * all their tasks, and of each the id and the message.
 */
export function encodeNew (pieces: readonly NewPiece[], queues: readonly string[]): Array<string | number> {
  const args: Array<string | number> = []
  for (const queue of queues) {
    const tasks: string[] = []
    const place = args.push(0) - 1
    for (const piece of pieces) {
      let text = ''
      let hasTerms = false
      for (const task of piece.tasks) {
        if (task.queue !== queue) continue
        const terms = termsOf(task)
        hasTerms ||= terms !== ''
        text += terms === '' ? `${task.id}\n` : `${task.id}\t${terms}\n`
        tasks.push(task.id, task.message)
      }
      if (text !== '') args.push(piece.id, `0 ${hasTerms ? '\t' : ''}\n${text}`)
    }
    args[place] = (args.length - place - 1) / 2
    args.push(tasks.length / 2)
    for (const value of tasks) args.push(value)
  }
  return args
}
