import { addingScripts } from './redis-adding.js'
import type { Script } from './redis-keys.js'
import { lookingScripts } from './redis-looking.js'
import { sliceScripts } from './redis-slices.js'
import { turnScripts } from './redis-turn.js'

export const scripts = { ...addingScripts, ...turnScripts, ...lookingScripts, ...sliceScripts } satisfies Record<string, Script>
