import { availableParallelism, cpus } from 'node:os'
import { OURS, versionHere, versionOf, versionOfRedis } from '../support/versions.js'

/** @import { Limits } from './measures/index.js' */

/** @typedef {ReturnType<typeof environmentOf>} Environment */

/**
 * On what a measure is made.
 *
 * @param {Limits} limits
 * @param {string[]} args Those of the program.
 */
export function environmentOf (limits, args) {
  return {
    ...limits,
    date: new Date().toISOString().slice(0, 10),
    cores: availableParallelism(),
    cpu: cpus()[0].model.trim(),
    node: process.versions.node,
    redis: versionOfRedis(),
    versions: {
      'fastify-taskqueue': OURS,
      fastify: versionHere('fastify'),
      ioredis: versionHere('ioredis'),
      ...Object.fromEntries(['bullmq', 'bee-queue', '@platformatic/job-queue'].map(name => [name, versionOf(name)]))
    },
    command: ['node bench/speed/main.js', ...args].join(' ')
  }
}
