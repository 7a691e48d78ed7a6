import { isIP } from 'node:net'

export type Protocol = 'http' | 'https'

/** Where a task comes from that no request adds. */
export const LOCAL_HOST = 'localhost'
export const LOCAL_IP = '127.0.0.1'

/** No address is longer, with the zone of an IPv6 address. */
const LONGEST_IP = 64

export function isAddress (value: unknown): value is string {
  return typeof value === 'string' && value.length <= LONGEST_IP && isIP(value) !== 0
}
