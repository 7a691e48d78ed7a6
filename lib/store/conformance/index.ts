import { adding } from './adding.js'
import { cancelling } from './cancelling.js'
import type { ConformanceTest, CreateStore } from './chapter.js'
import { claiming } from './claiming.js'
import { deferring } from './deferring.js'
import { duplicates } from './duplicates.js'
import { expiry } from './expiry.js'
import { finding } from './finding.js'
import { keeping } from './keeping.js'
import { leases } from './leases.js'
import { limiting } from './limiting.js'
import { news } from './news.js'
import { operating } from './operating.js'
import { replacing } from './replacing.js'
import { scheduling } from './scheduling.js'
import { settling } from './settling.js'
import { sharing } from './sharing.js'

export type { ConformanceTest }

const chapters = [
  adding, claiming, settling, deferring, leases, duplicates, replacing, expiry, finding, keeping, cancelling, operating,
  sharing, limiting, scheduling, news
]

/**
 * States what every store must do, as tests for any runner:
 *
 *     for (const { title, run } of storeConformance(() => new MyStore())) test(title, run)
 *
 * The suite creates, opens and closes a store for each test.
 */
export function storeConformance (create: CreateStore): ConformanceTest[] {
  return chapters.flatMap(chapter => chapter(create))
}
