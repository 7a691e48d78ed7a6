import { attempts } from './attempts.js'
import { ending } from './ending.js'
import { queueing, unqueueing } from './line.js'

/** What all scripts share that move tasks. */
export const moving = queueing + unqueueing + attempts + ending
