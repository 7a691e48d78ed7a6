import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { findRedis } from '../../build/test/support/redis-server.js'

/** The version of fastify-taskqueue. */
export const OURS = versionIn('../..')

/**
 * The version of a package that fastify-taskqueue uses here.
 *
 * @param {string} name
 */
export function versionHere (name) { return versionIn(`../../node_modules/${name}`) }

/**
 * The version of a package that is installed for the bench.
 *
 * @param {string} name
 */
export function versionOf (name) { return versionIn(`../node_modules/${name}`) }

export function versionOfRedis () {
  const file = findRedis()
  if (file === undefined) throw new Error('There is no redis-server: see scripts/setup.')
  const said = execFileSync(file, ['--version'], { encoding: 'utf8' })
  return /v=(\S+)/.exec(said)?.[1] ?? said.trim()
}

/**
 * @param {string} folder
 * @returns {string}
 */
function versionIn (folder) {
  return JSON.parse(readFileSync(new URL(`${folder}/package.json`, import.meta.url), 'utf8')).version
}
