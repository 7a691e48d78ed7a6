import { attempts } from './attempts.js'
import { ending } from './ending.js'
import { popping, queueing } from './line.js'
import { sharing } from './sharing.js'

/** The fragments that all scripts need which move tasks. It leaves behind what each of them does. */
export const moving = queueing + popping + sharing + attempts + ending
