import type { Script } from '../script.js'

/** Says whether Redis takes what is written, with any key. A full memory does not count, since that is to be emptied. */
export const vote: Script = {
  keys: [],
  body: /* lua */ `
local reply = redis.pcall('GETDEL', KEYS[1])
if type(reply) ~= 'table' then return 1 end
return redis.error_reply(string.find(reply.err, 'nknown') and 'ERR it is older than 6.2' or reply.err)
`
}
