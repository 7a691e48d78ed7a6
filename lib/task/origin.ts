import { isIP } from 'node:net'

export type Protocol = 'http' | 'https'

/** The host and the address of a task that is added outside a request. */
export const LOCAL_HOST = 'localhost'
export const LOCAL_IP = '127.0.0.1'

/** More characters than any address has, even an IPv6 address with its zone. */
const LONGEST_IP = 64

export function isAddress (value: unknown): value is string {
  return typeof value === 'string' && value.length <= LONGEST_IP && isIP(value) !== 0
}
