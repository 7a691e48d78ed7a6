import type { Script } from '../script.js'

/**
 * Fails unless Redis takes writes. Takes one key that nothing else uses. A full memory does not count, since consumers
 * are to empty it.
 */
export const vote: Script = {
  keys: [],
  body: /* lua */ `
local reply = redis.pcall('GETDEL', KEYS[1])
if type(reply) ~= 'table' then return 1 end
return redis.error_reply(string.find(reply.err, 'nknown') and 'ERR it is older than 6.2' or reply.err)
`
}
