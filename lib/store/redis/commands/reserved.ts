import { encode, localsOf, type Script } from '../script.js'

const PARAMS = { id: 'text', commit: 'text' } as const

/** Returns 1 while another commit is about to add the id, else 0. */
export const reserved: Script = {
  keys: ['reserved'],
  body: /* lua */ `${localsOf(PARAMS)}
local owner = redis.call('HGET', KEYS[1], id)
return owner and owner ~= commit and 1 or 0
`
}

export function encodeReserved (id: string, commit: string): Array<string | number> {
  return encode(PARAMS, { id, commit })
}
