import type { Publish } from '../observe/events.js'
import type { Pulse } from '../store/heartbeat.js'
import type { Store } from '../store/store.js'
import type { Consumer } from './consumer.js'
import type { InContext } from './context.js'
import { heartbeatMs } from './limits.js'

export interface Heartbeat {
  /** Beats now, out of turn. */
  beat (): Promise<void>
  stop (): void
}

/**
 * Prolongs the leases of all consumers of one store, in one call, and passes on what it
 * hears of their queues, so that one whose notifications are lost is late by one beat at
 * most.
 */
export function startHeartbeat (
  store: Store, consumers: readonly Consumer[], publish: Publish, inContext: InContext
): Heartbeat {
  let beating = false
  let failing = false
  let stopped = false
  let again: NodeJS.Timeout | undefined
  const faults = new Map<string, string | undefined>()
  const report = (pulses: readonly Pulse[]) => {
    pulses.forEach(({ fault }, index) => {
      const { queue } = consumers[index]!
      if (fault !== undefined && faults.get(queue) !== fault) publish('queue:fault', { queue, fault })
      faults.set(queue, fault)
    })
  }
  const periodMs = Math.min(...consumers.map(({ leaseMs }) => heartbeatMs(leaseMs)))
  const beat = async (): Promise<void> => {
    if (beating || stopped) return
    beating = true
    try {
      const holdings = consumers.map(consumer => consumer.heldLeases())
      const pulses = await store.extend(holdings)
      pulses.forEach((pulse, index) => { consumers[index]!.applyHeartbeat(pulse, holdings[index]!) })
      report(pulses)
      failing = false
    } catch (err) {
      if (!failing) publish('heartbeat:failed', { err })
      failing = true
      // The connection may be back long before the next beat, which may fail as well.
      clearTimeout(again)
      if (!stopped) again = setTimeout(beat, periodMs / 10)
    }
    beating = false
  }
  const timer = setInterval(beat, periodMs)
  return {
    beat: () => inContext(beat),
    stop () {
      stopped = true
      clearInterval(timer)
      clearTimeout(again)
    }
  }
}
