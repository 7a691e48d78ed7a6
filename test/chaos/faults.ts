import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import type { RedisServer } from '../support/redis-server.js'
import type { Member } from './fleet.js'
import type { Write } from './ledger.js'
import { LEAVES, QUEUES, SHARED, type FaultKind, type PlannedFault } from './plan.js'

export interface Scene {
  readonly fleet: readonly Member[]
  readonly redis: RedisServer
  /** A client of its own, past all proxies. */
  readonly admin: Redis
  /** Of the plugin that the fleet uses. */
  readonly scripts: Record<string, { readonly body: string }>
  readonly write: Write
}

/** Makes a fault happen, and heals it. */
export async function suffer (scene: Scene, planned: PlannedFault): Promise<void> {
  const { fault, target, ms } = planned
  const member = scene.fleet[target]
  const pid = member?.pid
  // It is dead already.
  if (member !== undefined && pid === undefined) return
  scene.write({ event: 'fault', fault, pid, ms })
  try {
    if (member !== undefined) await onMember[fault as OnMember](member, planned, scene)
    else await onRedis[fault as OnRedis](scene, planned)
  } catch {
    // Redis is not there to be harmed, which is harm enough.
  }
  scene.write({ event: 'healed', fault, pid })
}

type OnRedis = 'restart' | 'freeze' | 'pause' | 'full' | 'flush' | 'kill clients' | 'kill subscribers' | 'corrupt'
type OnMember = Exclude<FaultKind, OnRedis>

/** Scripts, and a command that each connection for notifications begins with. */
const ANSWERED = ['prepareNew', 'prepare', 'commitNew', 'commit', 'rollback', 'turn', 'extend', 'turn', 'prepareNew', 'subscribe']

const onMember: Record<OnMember, (member: Member, planned: PlannedFault, scene: Scene) => unknown> = {
  kill (member, { ms }) { member.kill(ms) },
  close (member, { ms }) { member.close(ms) },
  async leave (member, { ms, choice }) {
    const when = LEAVES[Math.floor(choice * 2 * LEAVES.length) % LEAVES.length]!
    const how = choice < 0.5 ? 'quit' : 'disconnect'
    if (when !== 'alone') return member.close(ms, { how, when })
    member.order({ alone: how, ms })
    await sleep(ms)
  },
  async stop (member, { ms }) {
    member.signal('SIGSTOP')
    await sleep(ms)
    member.signal('SIGCONT')
  },
  async block (member, { ms }) {
    member.order({ block: ms })
    await sleep(ms)
  },
  async skew (member, { ms, choice }) {
    member.order({ skew: choice < 0.5 ? -3_600_000 : 3_600_000 })
    await sleep(ms)
    member.order({ skew: 0 })
  },
  cut ({ proxy }) { proxy.cut() },
  async blackhole ({ proxy }, { ms }) {
    proxy.blackhole = true
    await sleep(ms)
    proxy.blackhole = false
    // What was lost leaves a hole in the stream, which TCP does not know.
    proxy.cut()
  },
  async lose ({ proxy }, { ms, choice }, { scripts }) {
    const command = ANSWERED[Math.floor(choice * ANSWERED.length)]!
    if (command === 'subscribe') proxy.cut()
    proxy.loseRepliesTo = command in scripts ? createHash('sha1').update(scripts[command]!.body).digest('hex') : command
    await sleep(ms)
    proxy.loseRepliesTo = undefined
    proxy.cut()
  },
  async half ({ proxy }, { ms, choice }) {
    await Promise.race([proxy.halve(choice < 0.5 ? 'request' : 'reply'), sleep(ms)])
  },
  async slow ({ proxy }, { ms, choice }) {
    proxy.delayMs = 20 + choice * 130
    await sleep(ms)
    proxy.delayMs = 0
  }
}

const onRedis: Record<OnRedis, (scene: Scene, planned: PlannedFault) => unknown> = {
  async restart ({ redis }, { ms }) {
    await redis.stop('SIGKILL')
    await sleep(ms)
    await redis.start()
  },
  async freeze ({ redis }, { ms }) {
    redis.freeze()
    await sleep(ms)
    redis.thaw()
  },
  async pause ({ admin }, { ms, choice }) {
    await admin.call('CLIENT', 'PAUSE', ms, choice < 0.5 ? 'ALL' : 'WRITE')
    await sleep(ms)
  },
  async full ({ admin }, { ms }) {
    const [, used] = /used_memory:(\d+)/.exec(await admin.info('memory'))!
    await admin.config('SET', 'maxmemory', used!)
    await sleep(ms)
    await lift(admin)
  },
  async flush ({ admin }) { await admin.script('FLUSH') },
  async 'kill clients' ({ admin }) { await admin.call('CLIENT', 'KILL', 'TYPE', 'normal') },
  async 'kill subscribers' ({ admin }) { await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub') },
  async corrupt ({ admin, write }, { choice }) {
    for (const queue of [QUEUES[Math.floor(choice * QUEUES.length)]!, SHARED]) {
      const corrupt: Array<{ id: Buffer, message?: Buffer }> = [
        { id: Buffer.from(`unreadable ${randomBytes(8).toString('hex')}`), message: randomBytes(100) },
        { id: Buffer.from(`nothing ${randomBytes(8).toString('hex')}`) },
        { id: randomBytes(20), message: randomBytes(20) },
        { id: randomBytes(200) }
      ]
      const multi = admin.multi()
      for (const { id, message } of corrupt) {
        if (message !== undefined) multi.hset(`taskqueue:{${queue}}:message`, id, message)
        if (choice < 0.25 || choice > 0.75) multi.lpush(`taskqueue:{${queue}}:waiting`, id)
        else multi.rpush(`taskqueue:{${queue}}:waiting`, id)
      }
      await multi.exec()
      for (const { id } of corrupt) write({ event: 'corrupted', id: id.toString('latin1') })
    }
  }
}

/** Lets Redis have as much memory as it likes. */
export async function lift (admin: Redis): Promise<void> {
  await admin.config('SET', 'maxmemory', '0')
}
