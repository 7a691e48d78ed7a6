import { mkdtempSync, rmSync } from 'node:fs'
import { Agent, request as ask } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { hasTasks } from '../faults/adder-and-consumer.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { check, type FinalState, type Findings } from './check.js'
import { lift, suffer } from './faults.js'
import { startFleet, type Member, type Teardown } from './fleet.js'
import { readLedger, writeTo, type Entry, type Write } from './ledger.js'

import { ALL_QUEUES, WEBS, type Plan, type PlannedRequest } from './plan.js'

export interface Run extends Findings {
  readonly ledger: readonly Entry[]
}

export const LIB = new URL('../../lib/index.js', import.meta.url).href

/** How long what is left may take to come to an end once there are no more faults. */
const DRAIN_MS = 60_000

/** Pauses all schedules of a queue, which a process that starts later does not change. */
const PAUSE_SCHEDULES = `
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local record = redis.call('HGET', KEYS[2], '+' .. id)
  redis.call('HSET', KEYS[2], '+' .. id, (string.gsub(record, '^(%d+ %d+ %d+) 0', '%1 1')))
  redis.call('ZADD', KEYS[1], 'inf', id)
end`

/** Runs a plan with the plugin at `lib`, and checks what has happened. */
export async function run (t: Teardown, plan: Plan, { lib = LIB, drainMs = DRAIN_MS } = {}): Promise<Run> {
  const dir = mkdtempSync(join(tmpdir(), 'tq-chaos-'))
  const path = join(dir, 'ledger')
  const write = writeTo(path)
  const { scripts } = await import(new URL('store/redis/scripts.js', lib).href)
  // Written before it answers. With `everysec` that may wait for the disk, and a kill loses what was acknowledged meanwhile.
  const redis = await startRedis(t, { args: ['--appendonly', 'yes', '--appendfsync', 'no'] })
  const admin = new Redis(redis.path, { enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: 5000, retryStrategy: () => 50, lazyConnect: true })
  admin.on('error', () => {})
  t.teardown(() => { admin.disconnect() })
  await admin.connect()
  const fleet = await startFleet(t, redis, dir, lib, write)
  t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })

  const start = performance.now()
  const at = async (ms: number) => { await sleep(Math.max(0, start + ms - performance.now())) }
  const scene = { fleet, redis, admin, scripts, write }
  // On a machine that is busy one lasts longer than planned. Redis may not be started by two at once.
  const suffering = new Map<number, Promise<void>>()
  const faults = plan.faults.map(async planned => {
    await at(planned.at)
    const others = suffering.get(planned.target)
    const over = Promise.resolve(others).then(() => suffer(scene, planned))
    suffering.set(planned.target, over)
    await over
  })
  await Promise.all(plan.requests.map(async (planned, number) => {
    await at(planned.at)
    await send(fleet, number, planned, write)
  }))
  await Promise.all(faults)

  await until(async () => await lift(admin).then(() => true, () => false), 'Redis is back')
  // Their tasks would come for ever.
  for (const queue of ALL_QUEUES) await admin.eval(PAUSE_SCHEDULES, 2, keyOf(queue, 'schedules'), keyOf(queue, 'schedule'))
  const drain = async () => { await until(async () => await isEmpty(admin).catch(() => false), 'nothing waits or runs', drainMs).catch(() => {}) }
  await drain()
  await Promise.all(fleet.slice(0, WEBS).map(member => member.retire()))
  // What they may still have had to say to Redis.
  await drain()
  await Promise.all(fleet.slice(WEBS).map(member => member.retire()))
  const ledger = readLedger(path)
  return { ledger, ...check(ledger, await lookAt(admin)) }
}

/** Sends a request to the web process that is planned, or to another if it is not there. */
async function send (fleet: readonly Member[], number: number, planned: PlannedRequest, write: Write): Promise<void> {
  const webs = [fleet[planned.web]!, ...fleet.slice(0, WEBS)]
  const port = webs.find(({ port }) => port !== undefined)?.port
  if (port === undefined) return
  write({ event: 'asked', request: number })
  try {
    write({ event: 'answered', request: number, status: await post(port, `/add/${number}`, planned) })
  } catch {
    write({ event: 'unanswered', request: number })
  }
}

const agent = new Agent({ keepAlive: false })

/** Returns the status, once the whole answer is there. */
async function post (port: number, path: string, body: object): Promise<number> {
  return await new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' }
    const request = ask({ agent, host: '127.0.0.1', port, path, method: 'POST', headers, timeout: 15_000 }, response => {
      response.on('end', () => { resolve(response.statusCode!) }).on('error', reject).on('close', reject).resume()
    })
    request.on('error', reject).on('timeout', () => { request.destroy() }).end(JSON.stringify(body))
  })
}

const keyOf = (queue: string, name: string) => `taskqueue:{${queue}}:${name}`

async function isEmpty (admin: Redis): Promise<boolean> {
  const { places } = await lookAt(admin)
  return Object.values(places).every(count => count === 0)
}

/** What is left in Redis. Ids are read as bytes: not all of them are text. */
async function lookAt (admin: Redis): Promise<FinalState> {
  const places: Record<string, number> = {}
  const dead: string[] = []
  const prepared: string[] = []
  const kept: string[] = []
  let commits = 0
  const text = (ids: Buffer[]) => ids.map(id => id.toString('latin1'))
  for (const queue of ALL_QUEUES) {
    for (const name of ['waiting', 'suspects']) places[keyOf(queue, name)] = await admin.llen(keyOf(queue, name))
    for (const name of ['delayed', 'running', 'lanes', 'ready', 'holding', 'pacing', 'resting']) places[keyOf(queue, name)] = await admin.zcard(keyOf(queue, name))
    dead.push(...text(await admin.zrangeBuffer(keyOf(queue, 'dead'), '0', '-1')))
    const values = await admin.hvalsBuffer(keyOf(queue, 'prepared'))
    prepared.push(...text(values.filter(hasTasks)))
    commits += values.length
    for (const name of ['message', 'attempts', 'lane']) kept.push(...text(await admin.hkeysBuffer(keyOf(queue, name))).map(field => field.replace(/ (?:progress|records|next)$/, '')))
  }
  return { places, dead, prepared, kept, commits, keys: await admin.keys('*') }
}
