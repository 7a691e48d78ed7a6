import { preludeOf } from '../lua/prelude.js'
import { reserving } from '../lua/preparing.js'
import { reading } from '../lua/tasks.js'
import type { Script } from '../script.js'
import { PREPARE_KEYS } from './prepare.js'

/** Drops what was prepared. Takes the keys of the queues that the pieces would add to, and the pieces. */
export const rollback: Script = {
  keys: PREPARE_KEYS,
  body: /* lua */ `${preludeOf(PREPARE_KEYS)}${reading}${reserving}
read_time()
for queue = 0, #KEYS / ${PREPARE_KEYS.length} - 1 do
  local k = keys_of(queue)
  for arg = 1, #ARGV, 2 do
    local tasks = prepared_in(redis.call('HGET', k.prepared, ARGV[arg]))
    redis.call('HDEL', k.prepared, ARGV[arg])
    if tasks then
      release(k, tasks)
      for i = 1, #tasks, 3 do
        if not tasks[i + 1] then redis.call('HDEL', k.message, tasks[i]) end
      end
    end
    redis.call('HSET', k.prepared, ARGV[arg], number(now) .. ' ')
  end
end
`
}
