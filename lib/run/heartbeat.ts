import type { FastifyBaseLogger } from 'fastify'
import type { Pulse } from '../store/heartbeat.js'
import type { Store } from '../store/store.js'
import type { Consumer, InContext } from './consumer.js'

/** Returns the period, in milliseconds, that leaves a lease four chances to be prolonged. */
export const heartbeatMs = (leaseMs: number): number => leaseMs / 5

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
  store: Store, consumers: readonly Consumer[], log: FastifyBaseLogger, inContext: InContext
): Heartbeat {
  let beating = false
  let failing = false
  let stopped = false
  let again: NodeJS.Timeout | undefined
  const faults = new Map<string, string | undefined>()
  const report = (pulses: readonly Pulse[]) => {
    pulses.forEach(({ fault }, index) => {
      const { queue } = consumers[index]!
      if (fault !== undefined && faults.get(queue) !== fault) log.error({ queue, fault }, 'store cannot do all that it should for a queue')
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
      if (!failing) log.error({ err }, 'store does not answer the heartbeat')
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
