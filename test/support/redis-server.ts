import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'

/** A Redis server of a test's own. */
export interface RedisServer {
  /** Its unix socket. */
  readonly path: string
  /** Its TCP port; 0 unless one was asked for. */
  readonly port: number
  readonly pid: number
  /** Kills it, as a crash would, or sends it another signal and waits for its end. */
  stop (signal?: NodeJS.Signals): Promise<void>
  /** Starts it again, on the same socket and with the same files, and maybe other arguments. */
  start (more?: string[]): Promise<void>
  /** Freezes it: connections stay open and nothing is answered. */
  freeze (): void
  thaw (): void
  /** Sets its clock so many seconds off that of the machine, where it was started with one that can be set. */
  setClock (seconds: number): void
}

export interface RedisServerOptions {
  /** More arguments of redis-server. */
  args?: string[]
  /** Whether it also listens on a free TCP port of the loopback interface. */
  tcp?: boolean
  /** Whether its clock can be set. */
  clock?: boolean
}

const children = new Set<ChildProcess>()
process.on('exit', () => { for (const child of children) child.kill('SIGKILL') })

/** Has a process end with this one, where a test that fails cannot see to it. */
export function endWithMe (child: ChildProcess): ChildProcess {
  children.add(child)
  return child.once('exit', () => { children.delete(child) })
}

/** Starts a server on a private socket; the test stops it at its end. */
export async function startRedis (t: { teardown (run: () => unknown): void }, { args = [], tcp = false, clock = false }: RedisServerOptions = {}): Promise<RedisServer> {
  // Short, since the path of a socket may have 108 bytes at most.
  const dir = mkdtempSync(join(tmpdir(), 'tq-'))
  const path = join(dir, 's')
  const port = tcp ? await freePort() : 0
  const clockFile = join(dir, 'clock')
  const setClock = (seconds: number) => {
    // In one step: the server may look at any moment.
    writeFileSync(`${clockFile}.new`, `${seconds < 0 ? '-' : '+'}${Math.abs(seconds)}`)
    renameSync(`${clockFile}.new`, clockFile)
  }
  setClock(0)
  let child: ChildProcess | undefined
  const server: RedisServer = {
    path,
    port,
    get pid () { return child!.pid! },
    async start (more = []) {
      child = endWithMe(spawn(findRedis({ clock })!, [
        '--port', String(port), '--bind', '127.0.0.1', '--unixsocket', path, '--dir', dir, '--save', '', '--appendonly', 'no', ...args, ...more
      ], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...clock && fakeClock(clockFile) } }))
      const { stdout } = child
      await new Promise<void>((resolve, reject) => {
        let log = ''
        child!.once('exit', code => { reject(new Error(`redis-server exited with ${code}: ${log}`)) })
        stdout!.on('data', chunk => {
          log += chunk
          if (/ready to accept connections/i.test(log)) resolve()
        })
      })
    },
    async stop (signal = 'SIGKILL') {
      if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
      const exit = new Promise(resolve => { child!.once('exit', resolve) })
      child.kill(signal)
      child.kill('SIGCONT')
      await exit
    },
    freeze () { child!.kill('SIGSTOP') },
    thaw () { child!.kill('SIGCONT') },
    setClock
  }
  await server.start()
  t.teardown(async () => {
    await server.stop()
    rmSync(dir, { recursive: true, force: true })
  })
  return server
}

export async function freePort (): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => { server.close(resolve) })
  return port
}

/** The server that `REDIS_SERVER` names, or else the one of the machine. A clock can be set of none that uses its own jemalloc. */
export function findRedis ({ clock = false } = {}): string | undefined {
  const { REDIS_SERVER, CLOCK_REDIS_SERVER, PATH = '' } = process.env
  for (const named of [clock && CLOCK_REDIS_SERVER, REDIS_SERVER]) if (named) return named
  return PATH.split(delimiter).map(dir => join(dir, 'redis-server')).find(file => existsSync(file))
}

/** Where Debian and Fedora, and a user, have libfaketime. */
function findFaketime (): string | undefined {
  const { FAKETIME_LIBRARY } = process.env
  if (FAKETIME_LIBRARY !== undefined && FAKETIME_LIBRARY !== '') return FAKETIME_LIBRARY
  const { arch } = process
  const triplet = `${{ x64: 'x86_64', arm64: 'aarch64' }[arch as string] ?? arch}-linux-gnu`
  return [`/usr/lib/${triplet}/faketime`, '/usr/lib64/faketime', '/usr/lib/faketime']
    .map(dir => join(dir, 'libfaketime.so.1')).find(file => existsSync(file))
}

/** The environment of a server that reads its clock from a file. Its timers go on as ever. */
function fakeClock (file: string): NodeJS.ProcessEnv {
  return {
    // With the allocator of libc: jemalloc asks for the time before libfaketime is ready, and neither survives that.
    LD_PRELOAD: `${findFaketime()}:libc.so.6`,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1'
  }
}
