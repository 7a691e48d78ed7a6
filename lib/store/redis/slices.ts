/**
 * How many bytes of something large may be on their way at once. It is what the connection carries in a moment, so that
 * other commands do not wait behind them for longer.
 */
export class SliceSize {
  #bytes = INITIAL_BYTES

  get bytes (): number { return this.#bytes }

  /** Learns how long a slice of so many bytes took, including all that it waited for. */
  note (bytes: number, ms: number): void {
    if (ms > SLOW_MS) this.shrink()
    else if (ms < FAST_MS && bytes > this.#bytes / 2) this.#bytes = Math.min(this.#bytes * 2, MAX_BYTES)
  }

  /** Learns that a slice has not arrived. */
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
