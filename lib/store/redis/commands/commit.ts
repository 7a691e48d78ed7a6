import { KEYS } from '../keys.js'
import { adding } from '../lua/adding.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { reserving } from '../lua/preparing.js'
import { reading } from '../lua/tasks.js'
import type { Script } from '../script.js'

/**
 * Returns what `commit`, `commitNew` and `rollback` take of each piece of a commit: its id, and 1 if a prepare of it
 * may yet arrive once more, else 0.
 */
export function encodePieces (
  pieces: ReadonlyArray<{ readonly id: string, readonly sends: number }>
): Array<string | number> {
  const args: Array<string | number> = []
  for (const { id, sends } of pieces) args.push(id, sends > 1 ? 1 : 0)
  return args
}

/** Commits what `prepare` has prepared. Takes the keys of the queues that the pieces add to, and the pieces. */
export const commit: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${reading}${reserving}${adding}
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  for arg = 1, #ARGV, 2 do
    local id, repeated = unpack(ARGV, arg, arg + 1)
    local text = redis.call('HGET', k.prepared, id)
    local tasks = prepared_in(text)
    if tasks then
      -- This is the first write, since a full memory allows it, and Redis then allows the rest.
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
