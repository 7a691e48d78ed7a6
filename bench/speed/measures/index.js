import * as adding from './adding.js'
import * as backlog from './backlog.js'
import * as committing from './committing.js'
import * as drain from './drain.js'
import * as latency from './latency.js'
import * as looking from './looking.js'
import * as memory from './memory.js'
import * as processes from './processes.js'
import * as queues from './queues.js'
import * as requests from './requests.js'
import * as sharing from './sharing.js'
import * as watching from './watching.js'

/** @import { Environment } from '../environment.js' */
/** @import { Goal } from '../goals.js' */
/** @import { Figures, Results, Trial } from '../results.js' */
/** @import { Roles, Stage } from '../stage.js' */
/** @import { DrainResults } from './drain.js' */

/**
 * How much is measured.
 *
 * @typedef {object} Limits
 * @property {number} tasks
 * @property {number} rounds
 * @property {boolean} quick Whether it is only to be seen that it works.
 */

/** @typedef {{ drain?: DrainResults | undefined }} Others The results that other measures build on. */

/**
 * Something that is measured, in `trials` that are made once in each round; `roundsOf` says how many rounds those are
 * where so many are wanted. Its section on the page has `tables` and `goals`. Such a module also has `roles`: what the
 * processes of a trial do.
 *
 * @template {Trial} [T=Trial]
 * @template {Figures} [F=Figures]
 * @template {Roles} [R=Roles]
 * @typedef {{
 *   title: string,
 *   roundsOf? (rounds: number): number,
 *   trials (limits: Limits): T[],
 *   measure (stage: Stage<R>, trial: T, limits: Limits): Promise<F>,
 *   tables (results: Results<T, F>, environment: Environment, others: Others): string[],
 *   goals (results: Results<T, F>, others: Others): Goal[]
 * }} Measure
 */

/**
 * @typedef {'drain' | 'adding' | 'committing' | 'latency' | 'memory' | 'backlog' | 'processes' | 'queues' |
 *   'requests' | 'sharing' | 'watching' | 'looking'} MeasureName
 */

/**
 * In the order of the page.
 *
 * @type {Record<MeasureName, Measure>}
 */
export const MEASURES = {
  drain, adding, committing, latency, memory, backlog, processes, queues, requests, sharing, watching, looking
}

export const NAMES = /** @type {MeasureName[]} */ (Object.keys(MEASURES))
