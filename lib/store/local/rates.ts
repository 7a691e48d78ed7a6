import type { Rate } from '../limits.js'

/** Knows which attempts several rates allow, each under a name. Times are milliseconds of the clock of this process. */
export class Rates {
  /** When the next attempt would be due if all were evenly spaced. */
  readonly #arrivals = new Map<string, number>()

  /** Returns the time from which on a rate allows the next attempt, and how many attempts it allows now. */
  next (name: string, rate: Rate | undefined, now: number): { readonly due: number, readonly allowed: number } {
    if (rate === undefined) return { due: 0, allowed: Infinity }
    const { intervalMs, toleranceMs } = spacing(rate)
    const due = this.#arrival(name, rate, now) - toleranceMs
    return { due, allowed: Math.max(0, Math.floor((now - due) / intervalMs) + 1) }
  }

  /** Counts attempts that begin now. */
  spend (name: string, rate: Rate | undefined, count: number, now: number): void {
    if (rate === undefined || count === 0) return
    this.#arrivals.set(name, this.#arrival(name, rate, now) + count * spacing(rate).intervalMs)
  }

  /** Forgets what no longer matters. */
  sweep (now: number): void {
    for (const [name, at] of this.#arrivals) if (at <= now) this.#arrivals.delete(name)
  }

  /** A time that is too far ahead comes from another rate. It is corrected once, and not whenever somebody asks. */
  #arrival (name: string, rate: Rate, now: number): number {
    const { intervalMs, toleranceMs } = spacing(rate)
    const latest = now + toleranceMs + intervalMs
    const at = this.#arrivals.get(name) ?? 0
    if (at > latest) this.#arrivals.set(name, latest)
    return Math.max(now, Math.min(at, latest))
  }
}

/** The time between two attempts, and how much sooner than that they may begin. In whole microseconds. */
function spacing ({ max, ms, burst = 1 }: Rate): { readonly intervalMs: number, readonly toleranceMs: number } {
  const intervalMs = Math.ceil(ms * 1000 / max) / 1000
  return { intervalMs, toleranceMs: (burst - 1) * intervalMs }
}
