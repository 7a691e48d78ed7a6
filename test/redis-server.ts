import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

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
}

export interface RedisServerOptions {
  /** More arguments of redis-server. */
  args?: string[]
  /** Whether it also listens on a free TCP port of the loopback interface. */
  tcp?: boolean
}

/** Starts a server on a private socket; the test stops it at its end. */
export async function startRedis (t: { teardown (run: () => unknown): void }, { args = [], tcp = false }: RedisServerOptions = {}): Promise<RedisServer> {
  // Short, since the path of a socket may have 108 bytes at most.
  const dir = mkdtempSync(join(tmpdir(), 'tq-'))
  const path = join(dir, 's')
  const port = tcp ? await freePort() : 0
  let child: ChildProcess | undefined
  const server: RedisServer = {
    path,
    port,
    get pid () { return child!.pid! },
    async start (more = []) {
      child = spawn(findRedis()!, [
        '--port', String(port), '--bind', '127.0.0.1', '--unixsocket', path, '--dir', dir, '--save', '', '--appendonly', 'no', ...args, ...more
      ], { stdio: ['ignore', 'pipe', 'inherit'] })
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
    thaw () { child!.kill('SIGCONT') }
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

export function findRedis (): string | undefined {
  const { REDIS_SERVER, PATH = '' } = process.env
  if (REDIS_SERVER !== undefined && REDIS_SERVER !== '') return REDIS_SERVER
  return PATH.split(delimiter).map(dir => join(dir, 'redis-server')).find(file => existsSync(file))
}

/** Installs Debian's server where that can be done, and otherwise says what to install. */
function requireRedis (): void {
  if (findRedis() !== undefined) return
  if (process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    console.log('redis-server is not installed: installing it with apt-get')
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    execFileSync('apt-get', ['update', '-qq'], { env, stdio: ['ignore', 'ignore', 'inherit'] })
    execFileSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'redis-server'], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  }
  if (findRedis() !== undefined) return
  console.error('The tests need redis-server 6.2 or later: install it (Debian: apt-get install redis-server), or set REDIS_SERVER to its path.')
  process.exit(1)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) requireRedis()
