/**
 * Reads a number from what the command `INFO` of Redis has answered.
 *
 * @param {string} info
 * @param {string} name
 */
export function numberIn (info, name) {
  const line = new RegExp(`^${name}:([\\d.]+)`, 'm').exec(info)
  if (line === null) throw new Error(`INFO has no ${name}`)
  return Number(line[1])
}

/**
 * The seconds of CPU that Redis has used.
 *
 * @param {string} info
 */
export function cpuSecondsIn (info) {
  return numberIn(info, 'used_cpu_user') + numberIn(info, 'used_cpu_sys')
}
