import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, cpus } from 'node:os'
import { findRedis } from '../../build/test/support/redis-server.js'

/** On what a measure was made. */
export function environmentOf (options, args) {
  const version = url => JSON.parse(readFileSync(url)).version
  const installed = (folder, name) => version(new URL(`${folder}/node_modules/${name}/package.json`, import.meta.url))
  return {
    ...options,
    date: new Date().toISOString().slice(0, 10),
    cores: availableParallelism(),
    cpu: cpus()[0].model.trim(),
    node: process.versions.node,
    redis: /v=(\S+)/.exec(execFileSync(findRedis(), ['--version'], { encoding: 'utf8' }))[1],
    versions: {
      'fastify-taskqueue': version(new URL('../../package.json', import.meta.url)),
      fastify: createRequire(import.meta.url)('fastify/package.json').version,
      ioredis: installed('../..', 'ioredis'),
      ...Object.fromEntries(['bullmq', 'bee-queue', '@platformatic/job-queue'].map(name => [name, installed('..', name)]))
    },
    command: ['node bench/speed/main.js', ...args].join(' ')
  }
}
