/** Tells whether queues are paused. Leaves behind: `is_paused`. */
export const pausing = /* lua */ `
local function is_paused (k)
  return string.match(redis.call('GET', k.clock) or '', '^%d+ %d+ (%d)') == '1'
end
`
