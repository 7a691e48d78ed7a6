import { addingScripts } from './adding.js'
import type { Script } from './keys.js'
import { lookingScripts } from './looking.js'
import { sliceScripts } from './slices.js'
import { turnScripts } from './turn.js'

export const scripts = { ...addingScripts, ...turnScripts, ...lookingScripts, ...sliceScripts } satisfies Record<string, Script>
