import { connect, createServer, type AddressInfo, type NetConnectOpts, type Socket } from 'node:net'

/** Stands between a client and a server, and harms what passes. */
export interface TcpProxy {
  readonly port: number
  /** Where new connections lead. */
  target: NetConnectOpts
  /** How long each piece is held back, in both directions, in order. */
  delayMs: number
  /** How much passes in a second, in each direction of each connection. */
  bytesPerS: number
  /** How much has passed. */
  readonly passed: { requests: number, replies: number }
  /** Whether nothing passes while connections stay open. */
  blackhole: boolean
  /** A text in a request from which on nothing is answered on its connection. */
  loseRepliesTo: string | undefined
  /** How many connections have lost answers so. */
  readonly deaf: number
  /** Called with each request. */
  onRequest: ((request: Buffer) => void) | undefined
  /** How many connections are open. */
  readonly connections: number
  /** Closes all connections. */
  cut (): void
  /** Lets nothing pass any more on the connections on which this text was requested; they stay open. */
  silence (text: string): void
  /** Lets half of the next request, or answer, pass and closes its connection; resolves when it has. */
  halve (what: 'request' | 'reply'): Promise<void>
  close (): Promise<void>
}

const PIECE_BYTES = 16 * 1024

export async function startProxy (t: { teardown (run: () => unknown): void }, target: NetConnectOpts): Promise<TcpProxy> {
  const pairs = new Map<Socket[], { requested: string, isSilent: boolean }>()
  let halving: { what: 'request' | 'reply', done: () => void } | undefined
  let deaf = 0

  const server = createServer(client => {
    const upstream = connect(proxy.target)
    const pair = [client, upstream]
    const state = { requested: '', isSilent: false }
    pairs.set(pair, state)
    const end = () => {
      pairs.delete(pair)
      for (const socket of pair) socket.destroy()
    }
    for (const socket of pair) socket.setNoDelay(true).on('error', end).on('close', end)
    let isDeaf = false
    const halved = (what: 'request' | 'reply', chunk: Buffer) => {
      if (halving?.what !== what) return chunk
      const { done } = halving
      halving = undefined
      setImmediate(() => {
        end()
        done()
      })
      return chunk.subarray(0, Math.ceil(chunk.length / 2))
    }
    pipe(client, upstream, () => proxy.blackhole || state.isSilent, chunk => {
      // The beginning says what a connection is for.
      if (state.requested.length < 10_000) state.requested += chunk.toString('latin1')
      if (!isDeaf && proxy.loseRepliesTo !== undefined && chunk.includes(proxy.loseRepliesTo)) {
        isDeaf = true
        deaf++
      }
      proxy.passed.requests += chunk.length
      proxy.onRequest?.(chunk)
      return halved('request', chunk)
    })
    pipe(upstream, client, () => proxy.blackhole || state.isSilent || isDeaf, chunk => {
      proxy.passed.replies += chunk.length
      return halved('reply', chunk)
    })
  })

  /** One line and one timer per direction, so that a delay that changes reorders nothing. */
  function pipe (from: Socket, to: Socket, isLost: () => boolean, change = (chunk: Buffer) => chunk): void {
    const line: Array<{ chunk: Buffer, at: number }> = []
    let timer: NodeJS.Timeout | undefined
    let freeAt = 0
    const flush = () => {
      timer = undefined
      while (line.length > 0 && line[0]!.at <= performance.now()) {
        const { chunk } = line.shift()!
        if (!to.destroyed) to.write(change(chunk))
      }
      if (line.length <= 64) from.resume()
      if (line.length > 0) timer = setTimeout(flush, Math.max(1, line[0]!.at - performance.now()))
    }
    from.on('data', chunk => {
      if (isLost()) return
      for (let i = 0; i < chunk.length; i += PIECE_BYTES) {
        const piece = chunk.subarray(i, i + PIECE_BYTES)
        freeAt = Math.max(freeAt, performance.now()) + piece.length / proxy.bytesPerS * 1000
        line.push({ chunk: piece, at: freeAt + proxy.delayMs })
      }
      if (line.length > 64) from.pause()
      if (timer === undefined) flush()
    })
  }

  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const proxy: TcpProxy = {
    port: (server.address() as AddressInfo).port,
    target,
    delayMs: 0,
    bytesPerS: Infinity,
    passed: { requests: 0, replies: 0 },
    blackhole: false,
    loseRepliesTo: undefined,
    onRequest: undefined,
    get deaf () { return deaf },
    get connections () { return pairs.size },
    cut () { for (const pair of [...pairs.keys()]) for (const socket of pair) socket.destroy() },
    silence (text) { for (const state of pairs.values()) if (state.requested.includes(text)) state.isSilent = true },
    halve: async what => { await new Promise<void>(resolve => { halving = { what, done: resolve } }) },
    async close () {
      proxy.cut()
      await new Promise(resolve => { server.close(resolve) })
    }
  }
  t.teardown(() => proxy.close())
  return proxy
}
