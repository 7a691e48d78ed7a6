import { encode, localsOf, type Params, type Script } from '../script.js'

/** For how long after the last part Redis keeps what travels in parts, in milliseconds. */
export const KEEP_MS = 60_000

const PARAMS = { number: 'number', bytes: 'text', when_full: 'number' } as const satisfies Params

/** Keeps one part of a call's arguments in the call's key. With `when_full` 1, also if the memory is full. */
export const part: Script = {
  keys: [],
  body: /* lua */ `${localsOf(PARAMS)}
if when_full == 1 then redis.call('PEXPIRE', KEYS[1], ${KEEP_MS}) end
redis.call('HSET', KEYS[1], number, bytes)
redis.call('PEXPIRE', KEYS[1], ${KEEP_MS})
`
}

/** The client sends the bytes as they are, though the types of a script's arguments say text. */
export function encodePart (number: number, bytes: Buffer, whenFull: boolean): Array<string | number | Buffer> {
  return encode(PARAMS, { number, bytes: bytes as unknown as string, when_full: whenFull ? 1 : 0 })
}
