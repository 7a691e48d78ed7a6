import { KEYS } from '../keys.js'
import { adding } from '../lua/adding.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { reserving } from '../lua/preparing.js'
import { reading } from '../lua/tasks.js'
import type { Script } from '../script.js'

/** Tells `commit`, `commitNew` and `rollback` of pieces of commits: which, and whether each may yet arrive once more. */
export function encodePieces (pieces: ReadonlyArray<{ readonly id: string, readonly sends: number }>): Array<string | number> {
  return pieces.flatMap(({ id, sends }) => [id, sends > 1 ? 1 : 0])
}

/** Takes pieces, and the keys of the queues that they add to. */
export const commit: Script = {
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
