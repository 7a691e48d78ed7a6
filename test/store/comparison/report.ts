import { inspect } from 'node:util'
import type { Difference } from './compare.js'

/** Says after which steps what stores show what, and how to see it again. */
export function describe ({ sequence: { seed, keepCount, keepDeadCount, isOutOfTouch, steps }, step, what, shown }: Difference): string {
  return [
    `the stores differ in "${what}" after step ${step}, seed ${seed} (${keepCount} kept, ${keepDeadCount ?? 'all'} dead${isOutOfTouch ? ', out of touch' : ''}):`,
    ...steps.map((step, index) => `  ${index} ${inspect(step, { depth: 9, breakLength: Infinity })}`),
    ...Object.entries(shown).map(([name, value]) => `  ${name}: ${inspect(value, { depth: 9, breakLength: 150 })}`)
  ].join('\n')
}
