import type { Script } from '../script.js'

/** Deletes keys: that of a consumer which closes, or that of a call which was made. */
export const leave: Script = {
  keys: [],
  body: /* lua */ `
redis.call('DEL', unpack(KEYS))
`
}
