import { attempts } from './attempts.js'
import { ending } from './ending.js'
import { queueing, unqueueing } from './line.js'

/** The fragments that all scripts share which move tasks: `queueing`, `unqueueing`, `attempts` and `ending`. */
export const moving = queueing + unqueueing + attempts + ending
