import { admitting } from './admitting.js'
import { attempts } from './attempts.js'
import { ending } from './ending.js'
import { lanes } from './lanes.js'
import { popping, queueing } from './line.js'

/** The fragments that all scripts need which move tasks. It leaves behind what each of them does. */
export const moving = queueing + popping + lanes + admitting + attempts + ending
