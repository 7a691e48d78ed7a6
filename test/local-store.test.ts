import t from 'tap'
import { storeConformance } from '../lib/conformance.js'
import { LocalStore } from '../lib/local-store.js'

for (const { title, run } of storeConformance(() => new LocalStore())) t.test(title, run)
