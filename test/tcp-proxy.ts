import { connect, createServer, type AddressInfo, type NetConnectOpts, type Socket } from 'node:net'

/** Stands between a client and a server, and harms what passes. */
export interface TcpProxy {
  readonly port: number
  /** How long each piece is held back, in both directions, in order. */
  delayMs: number
  /** Whether nothing passes while connections stay open. */
  blackhole: boolean
  /** A text in a request from which on nothing is answered on its connection. */
  loseRepliesTo: string | undefined
  /** How many connections have lost answers so. */
  readonly deaf: number
  /** How many connections are open. */
  readonly connections: number
  /** Closes all connections. */
  cut (): void
  /** Lets half of the next answer pass and closes its connection. */
  halveReply (): void
  close (): Promise<void>
}

export async function startProxy (t: { teardown (run: () => unknown): void }, target: NetConnectOpts): Promise<TcpProxy> {
  const pairs = new Set<Socket[]>()
  let halving = false
  let deaf = 0

  const server = createServer(client => {
    const upstream = connect(target)
    const pair = [client, upstream]
    pairs.add(pair)
    const end = () => {
      pairs.delete(pair)
      for (const socket of pair) socket.destroy()
    }
    for (const socket of pair) socket.setNoDelay(true).on('error', end).on('close', end)
    let isDeaf = false
    pipe(client, upstream, () => proxy.blackhole, chunk => {
      if (!isDeaf && proxy.loseRepliesTo !== undefined && chunk.includes(proxy.loseRepliesTo)) {
        isDeaf = true
        deaf++
      }
      return chunk
    })
    pipe(upstream, client, () => proxy.blackhole || isDeaf, chunk => {
      if (!halving) return chunk
      halving = false
      setImmediate(end)
      return chunk.subarray(0, Math.ceil(chunk.length / 2))
    })
  })

  /** One line and one timer per direction, so that a delay that changes reorders nothing. */
  function pipe (from: Socket, to: Socket, isLost: () => boolean, change = (chunk: Buffer) => chunk): void {
    const line: Array<{ chunk: Buffer, at: number }> = []
    let timer: NodeJS.Timeout | undefined
    const flush = () => {
      timer = undefined
      while (line.length > 0 && line[0]!.at <= performance.now()) {
        const { chunk } = line.shift()!
        if (!to.destroyed) to.write(change(chunk))
      }
      if (line.length > 0) timer = setTimeout(flush, Math.max(1, line[0]!.at - performance.now()))
    }
    from.on('data', chunk => {
      if (isLost()) return
      line.push({ chunk, at: performance.now() + proxy.delayMs })
      if (timer === undefined) flush()
    })
  }

  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const proxy: TcpProxy = {
    port: (server.address() as AddressInfo).port,
    delayMs: 0,
    blackhole: false,
    loseRepliesTo: undefined,
    get deaf () { return deaf },
    get connections () { return pairs.size },
    cut () { for (const pair of [...pairs]) for (const socket of pair) socket.destroy() },
    halveReply () { halving = true },
    async close () {
      proxy.cut()
      await new Promise(resolve => { server.close(resolve) })
    }
  }
  t.teardown(() => proxy.close())
  return proxy
}
