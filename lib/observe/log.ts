import type { FastifyBaseLogger } from 'fastify'
import type { AttemptEnd, EventName, Events, Publish, QuietName } from './events.js'

type Line<Name extends EventName> = (log: FastifyBaseLogger, event: Events[Name]) => void
type Lines = { readonly [Name in Exclude<EventName, QuietName>]: Line<Name> } & { readonly [Name in QuietName]?: never }

/** How each event is logged. */
const LINES: Lines = {
  'consumer:start': (log, event) => { log.info(event, 'consumer has started') },
  'attempt:end': logAttempt,
  'task:buried': (log, event) => { log.error(event, 'task is dead before it was attempted') },
  'onDead:failed': (log, event) => { log.error(event, 'onDead failed: what it was to add is not added') },
  'task:cancelled': (log, event) => { log.info(event, 'task is cancelled') },
  'task:returned': (log, event) => {
    log.warn(event, 'task is given back: the app closes and its grace is over')
  },
  'lease:lost': (log, event) => { log.warn(event, 'task lost its lease; it may run twice') },
  'tasks:unsettled': (log, event) => {
    log.warn(event, 'tasks could not be settled before the app closed; they will run again')
  },
  'dead:dropped': (log, event) => {
    log.warn(event, 'dead letters are dropped: keepDead or keepDeadMs keeps no more')
  },
  'schedule:tick': logTick,
  'schedule:unreadable': (log, event) => {
    log.error(event, 'schedule cannot be read here: other processes may read it')
  },
  'schedules:failed': (log, event) => { log.error(event, 'store does not answer for schedules') },
  'store:failed': (log, event) => { log.error(event, 'store does not answer the consumer') },
  'store:recovered': (log, event) => { log.info(event, 'store answers the consumer again') },
  'heartbeat:failed': (log, event) => { log.error(event, 'store does not answer the heartbeat') },
  'queue:fault': (log, event) => { log.error(event, 'store cannot do all that it should for a queue') }
}

/** Makes the function that logs events. */
export function logTo (log: FastifyBaseLogger): Publish {
  return (name, event) => { (LINES[name] as Line<typeof name> | undefined)?.(log, event) }
}

function logTick (log: FastifyBaseLogger, tick: Events['schedule:tick']): void {
  if (tick.result === 'missed' || tick.missed > 0) log.warn(tick, 'schedule has missed slots')
  else if (tick.result === 'added') log.debug(tick, 'schedule has added a task')
  else log.debug(tick, 'schedule skips a slot: its last task has not ended')
}

/** Logs the one line that each attempt ends with. */
function logAttempt (log: FastifyBaseLogger, attempt: AttemptEnd): void {
  switch (attempt.verdict) {
    case 'done':
      if (attempt.status === undefined || attempt.status < 300) log.info(attempt, 'task done')
      else log.warn(attempt, 'task done, its redirection not followed')
      break
    case 'retry':
      log.warn(attempt, 'task failed and will be tried again')
      break
    case 'defer':
      // One warning stands for all tasks without a route.
      log[attempt.unrouted === true ? 'debug' : 'info'](attempt, 'task is put off')
      break
    case 'release':
      log.info(attempt, 'task given back: the app closes')
      break
    case 'dead':
      log.error(attempt, 'task failed for good')
  }
}
