import { systems } from '../systems.js'
import * as processes from './processes.js'
import * as redis from './redis.js'
import * as requests from './requests.js'

/** @import { AppBed } from '../app-bed.js' */
/** @import { SystemName } from '../systems.js' */

/** @typedef {Record<string, string | number>} Figures What an experiment has brought, by what was measured. */

/**
 * Makes an experiment on a system.
 *
 * @callback Experiment
 * @param {SystemName} system
 * @param {AppBed} bed
 * @returns {Promise<Figures>}
 */

/**
 * When an experiment is made. Those that keep the machine busy are made `alone`, one system after the other; then
 * those in which seconds count (`timed`), all at once since they mostly wait; then those that only take `long`.
 *
 * @typedef {'alone' | 'timed' | 'long'} Kind
 */

/**
 * @typedef {object} Entry
 * @property {string} title
 * @property {Experiment} run
 * @property {Kind} kind
 * @property {readonly SystemName[]} names The systems on which it is made.
 */

const ALL = /** @type {SystemName[]} */ (Object.keys(systems))

/** @type {readonly Entry[]} */
export const EXPERIMENTS = [
  entry('A request adds a task and then fails', requests.failingRequests, 'alone'),
  entry('The reply of Redis to an add is lost, and the connection with it', requests.lostReplies, 'alone'),
  entry('The same, with a `jobId` of the caller\'s own for each', requests.lostRepliesWithIds, 'alone', ['BullMQ']),
  entry('Redis is frozen while a request adds', requests.frozenRequests, 'timed'),
  entry('Redis is down while a request adds', requests.unreachableRequests, 'timed'),
  entry('The same, frozen, with `enableOfflineQueue: false` as BullMQ advises for requests',
    requests.frozenRequestsAsAdvised, 'timed', ['BullMQ']),
  entry('The same, down, with `enableOfflineQueue: false`', requests.unreachableRequestsAsAdvised, 'timed', ['BullMQ']),
  entry('The process that runs a task is killed (`kill -9`), another one is idle', processes.kills, 'timed'),
  entry('Redis is frozen for 40 s while 20 tasks run, on two live processes', redis.frozenRedis, 'long'),
  entry('Redis is full (`maxmemory`, `noeviction`) with 1,000 tasks waiting', redis.fullRedis, 'long'),
  entry('2 tasks kill their process among 20 that do not; two processes, concurrency 5, restarted',
    processes.poison, 'long'),
  entry('One process at rest, a consumer for each queue', redis.idle, 'long'),
  entry('The wall clock of the process that runs tasks is wrong', processes.wrongClocks, 'timed'),
  entry('The app is closed while a handler hangs, another process is idle', processes.closing, 'timed'),
  entry('A message is damaged in Redis, 10 tasks before it and 10 behind', redis.damagedMessages, 'timed'),
  entry('The key of the waiting tasks has a wrong type', redis.wrongType, 'alone')
]

/**
 * @param {string} title
 * @param {Experiment} run
 * @param {Kind} kind
 * @param {readonly SystemName[]} names
 * @returns {Entry}
 */
function entry (title, run, kind, names = ALL) { return { title, run, kind, names } }
