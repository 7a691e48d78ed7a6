import type { Script } from '../script.js'

/** Leaves nothing of some keys: of a consumer that closes, or of a call that was made. */
export const leave: Script = {
  keys: [],
  body: /* lua */ `
redis.call('DEL', unpack(KEYS))
`
}
