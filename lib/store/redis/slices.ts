import { KEYS, moving, preludeOf, type Script } from './keys.js'
import { ticking } from './turn.js'

/** For how long Redis keeps what is on its way in parts, after the last of them. */
const KEEP_MS = 60_000

/** KEYS: that of a call. ARGV: the number of a part of its arguments, the part, and 1 if a full memory is to take it. */
const part: Script = {
  keys: [],
  body: /* lua */ `
if ARGV[3] == '1' then redis.call('PEXPIRE', KEYS[1], ${KEEP_MS}) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ${KEEP_MS})
`
}

/**
 * KEYS: those of the queue, and one for the copy of a message from which slices are cut, since a field of a hash can only be
 * read as a whole. ARGV: the id of a running task, its fence, where the slice begins and how long it is. Returns the slice;
 * nothing if the lease is lost or the message gone.
 */
const slice: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${ticking}
local k, copy = keys_of(0), KEYS[#KEYS]
local id, fence, from, length = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not holds(look_up_running(k, { id })[1], fence) then return false end
local size = redis.call('HSTRLEN', k.message, id)
-- First, since a full memory allows it, and then the rest.
if redis.call('PEXPIRE', copy, ${KEEP_MS}) == 0 then
  local message = redis.call('HGET', k.message, id)
  if not message then return false end
  if size <= length then return message end
  redis.call('SET', copy, message, 'PX', ${KEEP_MS})
end
local bytes = redis.call('GETRANGE', copy, from, from + length - 1)
if from + length >= size then redis.call('DEL', copy) end
return bytes
`
}

export const sliceScripts = { part, slice }

/**
 * How much of something large may be on its way at once: what the connection carries in a moment, so that
 * whatever is asked or told besides does not have to wait behind it for longer.
 */
export class SliceSize {
  #bytes = INITIAL_BYTES

  get bytes (): number { return this.#bytes }

  /** Learns how long one of so many bytes took, with all that it waited for. */
  note (bytes: number, ms: number): void {
    if (ms > SLOW_MS) this.shrink()
    else if (ms < FAST_MS && bytes > this.#bytes / 2) this.#bytes = Math.min(this.#bytes * 2, MAX_BYTES)
  }

  /** One has not arrived. */
  shrink (): void {
    this.#bytes = Math.max(this.#bytes / 2, MIN_BYTES)
  }
}

const MIN_BYTES = 8 * 1024
const INITIAL_BYTES = 64 * 1024
const MAX_BYTES = 256 * 1024
const FAST_MS = 50
const SLOW_MS = 500

/** Packs arguments as MessagePack: an array of texts. */
export function pack (args: ReadonlyArray<string | number>): Buffer {
  const texts = args.map(String)
  const packed = Buffer.allocUnsafe(5 + texts.reduce((sum, text) => sum + 5 + Buffer.byteLength(text), 0))
  packed[0] = 0xdd
  let at = packed.writeUInt32BE(texts.length, 1)
  for (const text of texts) {
    const length = packed.write(text, at + 5)
    packed[at] = 0xdb
    packed.writeUInt32BE(length, at + 1)
    at += 5 + length
  }
  return packed
}
