import { addingScripts } from './redis-adding.js'
import type { Script } from './redis-keys.js'
import { lookingScripts } from './redis-looking.js'
import { turnScripts } from './redis-turn.js'

export const scripts = { ...addingScripts, ...turnScripts, ...lookingScripts } satisfies Record<string, Script>
