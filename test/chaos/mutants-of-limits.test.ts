import t from 'tap'
import { testMutants } from './mutants.js'

testMutants(t, [
  {
    title: 'a key has more of its tasks run than it allows where a claim does not ask how many run',
    file: 'store/redis/lua/admitting.js',
    edits: [['not most or math.floor(first[2] / CLASS) < most', 'true']],
    seed: 1,
    secs: 5,
    options: { faults: [], poison: 0 },
    breaks: 'limit'
  },
  {
    title: 'a queue has more of its tasks run than it allows where a claim takes as many as it has room for',
    file: 'store/redis/lua/claiming.js',
    edits: [['most = math.min(most, allowed)', '']],
    seed: 1,
    secs: 5,
    options: { faults: [], poison: 0 },
    breaks: 'limit'
  },
  {
    title: 'a key whose task has failed never runs another where the failed one goes on counting as running',
    file: 'store/redis/lua/lanes.js',
    edits: [["if key and key ~= '' then redis.call('ZREM', k.holding", "if false then redis.call('ZREM', k.holding"]],
    seed: 1,
    secs: 3,
    options: { faults: [], poison: 0 },
    breaks: 'left'
  },
  {
    title: 'slots that were over while Redis was frozen are lost where a schedule makes up for the last one only',
    file: 'schedule/slots.js',
    edits: [["catchUp === 'all'", 'false']],
    seed: 1,
    secs: 8,
    options: { faults: ['freeze'], leases: [1, 1.5], poison: 0 },
    breaks: 'slot'
  },
  {
    title: 'an app that closes under its commits tells successes that are not stored',
    file: 'add/open-commits.js',
    edits: [['if (this.#isClosed)', 'if (false)'], ['if (this.#underWay > 0)', 'if (false)']],
    seed: 1,
    secs: 5,
    options: { faults: ['close', 'leave'], poison: 0 },
    breaks: 'torn'
  }
])
