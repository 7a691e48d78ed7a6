import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { endWithMe, findRedis, freePort, startRedis, type RedisServer } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { adminOf } from './adder-and-consumer.js'

/** A master and its replica, which may change places. */
export interface Pair {
  /** Waits until one of them is the master by its own word, and this one if it is given. */
  master (expected?: RedisServer): Promise<RedisServer>
  other (server: RedisServer): RedisServer
  /** A client whose commands fail soon while its server is not there. */
  adminOf (server: RedisServer): Redis
  /** Waits until one of them is the replica of the other, and has everything. */
  complete (): Promise<void>
}

export async function startPair (t: Test): Promise<Pair> {
  // By default a master waits for more replicas before it sends them what it has.
  const options = { tcp: true, args: ['--repl-diskless-sync-delay', '0'] }
  const servers = [await startRedis(t, options), await startRedis(t, options)] as const
  const admins = new Map(servers.map(server => [server, adminOf(t, server, { maxRetriesPerRequest: 0, enableOfflineQueue: false, commandTimeout: 2000 })]))
  const replication = async (server: RedisServer) => await admins.get(server)!.info('replication').catch(() => '')
  const pair: Pair = {
    async master (expected) {
      let found: RedisServer | undefined
      await until(async () => {
        for (const server of expected === undefined ? servers : [expected]) if ((await replication(server)).includes('role:master')) found = server
        return found !== undefined
      }, 'a master', 30_000)
      return found!
    },
    other: server => server === servers[0] ? servers[1] : servers[0],
    adminOf: server => admins.get(server)!,
    async complete () {
      await until(async () => {
        const roles = (await Promise.all(servers.map(replication))).map(info => /role:(master)[^]*state=online|role:slave[^]*master_link_status:(up)/.exec(info)?.slice(1).join(''))
        return roles.sort().join() === 'master,up'
      }, 'a master and its replica', 30_000)
    }
  }
  await until(() => servers.every(server => pair.adminOf(server).status === 'ready'))
  await pair.adminOf(servers[1]).call('REPLICAOF', '127.0.0.1', servers[0].port)
  await pair.complete()
  return pair
}

/** Three sentinels that watch over the pair; returns what an app connects to. */
export async function startSentinels (t: Test, pair: Pair): Promise<{ name: string, sentinels: Array<{ host: string, port: number }> }> {
  const dir = mkdtempSync(join(tmpdir(), 'tq-'))
  t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
  const name = 'tasks'
  const { port: master } = await pair.master()
  const ports = [await freePort(), await freePort(), await freePort()]
  for (const port of ports) {
    const file = join(dir, `${port}.conf`)
    writeFileSync(file, [
      `port ${port}`, 'bind 127.0.0.1', `sentinel monitor ${name} 127.0.0.1 ${master} 2`,
      `sentinel down-after-milliseconds ${name} 1000`, `sentinel failover-timeout ${name} 2000`, ''
    ].join('\n'))
    const child = endWithMe(spawn(findRedis()!, [file, '--sentinel'], { stdio: 'ignore' }))
    t.teardown(() => { child.kill('SIGKILL') })
  }
  for (const port of ports) {
    const admin = new Redis({ port, host: '127.0.0.1' })
    admin.on('error', () => {})
    t.teardown(() => { admin.disconnect() })
    await until(() => admin.status === 'ready')
    // A young Sentinel can be told to look more often; an old one takes its time.
    await admin.call('SENTINEL', 'DEBUG', 'PUBLISH-PERIOD', 200, 'INFO-PERIOD', 500).catch(() => {})
    const lengths = async () => await Promise.all(['REPLICAS', 'SENTINELS'].map(async what => (await admin.call('SENTINEL', what, name) as unknown[]).length))
    await until(async () => (await lengths().catch(() => [])).join() === '1,2', 'sentinels that know each other', 30_000)
  }
  return { name, sentinels: ports.map(port => ({ host: '127.0.0.1', port })) }
}
