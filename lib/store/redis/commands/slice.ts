import type { Held } from '../../turn.js'
import { KEYS } from '../keys.js'
import { leases } from '../lua/leases.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { encode, localsOf, type Script } from '../script.js'
import { KEEP_MS } from './part.js'

const PARAMS = { id: 'text', fence: 'number', from: 'number', length: 'number' } as const

/**
 * Returns a slice of the message of a running task; nothing if the lease is lost or the message is gone. Takes one more
 * key, which holds a copy of the message to cut slices from, since a field of a hash can only be read as a whole.
 */
export const slice: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${leases}
${localsOf(PARAMS)}local k, copy = keys_of(0), KEYS[#KEYS]
if not holds(look_up_running(k, { id })[1], fence) then return false end
local size = redis.call('HSTRLEN', k.message, id)
-- This is the first write, since a full memory allows it, and Redis then allows the rest.
if redis.call('PEXPIRE', copy, ${KEEP_MS}) == 0 then
  local message = redis.call('HGET', k.message, id)
  if not message then return false end
  if size <= length then return message end
  redis.call('SET', copy, message, 'PX', ${KEEP_MS})
end
local bytes = redis.call('GETRANGE', copy, from, from + length - 1)
if from + length >= size then redis.call('DEL', copy) end
return bytes
`
}

export function encodeSlice ({ id, fence }: Held, from: number, length: number): Array<string | number> {
  return encode(PARAMS, { id, fence, from, length })
}
