import type { Script } from '../script.js'

/**
 * Deletes a key: that of a consumer which closes, or that of a call which was made. Given the key of the consumers and
 * the name of one, it forgets that one as well.
 */
export const leave: Script = {
  keys: [],
  body: /* lua */ `
redis.call('DEL', KEYS[1])
if KEYS[2] then redis.call('HDEL', KEYS[2], ARGV[1]) end
`
}
