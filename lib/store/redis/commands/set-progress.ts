import type { Held } from '../../turn.js'
import { KEYS } from '../keys.js'
import { leases } from '../lua/leases.js'
import { moving } from '../lua/moving.js'
import { preludeOf } from '../lua/prelude.js'
import { encode, localsOf, type Script } from '../script.js'

const PARAMS = { id: 'text', fence: 'number', value: 'text' } as const

/** Keeps the progress of a running task. Returns 1 if its lease is held, else 0. */
export const setProgress: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${leases}
${localsOf(PARAMS)}local k = keys_of(0)
local p = look_up_running(k, { id })[1]
if not holds(p, fence) then return 0 end
keep_more(k, id, p, ' progress', value)
redis.call('HSET', k.attempts, id, counts_of(p, p.reason))
return 1
`
}

export function encodeProgress ({ id, fence }: Held, value: string): Array<string | number> {
  return encode(PARAMS, { id, fence, value })
}
