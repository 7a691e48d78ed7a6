import { attempts } from './attempts.js'
import { ending } from './ending.js'
import { queueing, unqueueing } from './line.js'

/** The fragments that all scripts need which move tasks. It leaves behind what each of them does. */
export const moving = queueing + unqueueing + attempts + ending
