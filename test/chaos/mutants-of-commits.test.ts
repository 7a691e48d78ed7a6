import t from 'tap'
import { testMutants } from './mutants.js'

testMutants(t, [
  {
    title: 'a commit in one phase, which cannot be withdrawn, runs tasks of requests that were answered with 503',
    file: 'store/redis/commands/prepare-new.js',
    edits: [
      ['if ok and is_set then return end', [
        'if ok and is_set then',
        '  line_up(k, every_second(first_task, last_task), {})',
        "  for i = first, last, 2 do redis.call('HSET', k.prepared, ARGV[i], '0 ') end",
        '  return',
        'end'
      ].join('\n')],
      ["const KEYS = ['prepared', 'message'];", [
        "import { KEYS } from '../keys.js';",
        "import { queueing } from '../lua/line.js';"
      ].join('\n')],
      // eslint-disable-next-line no-template-curly-in-string
      ['${preludeOf(KEYS)}', '${preludeOf(KEYS)}${queueing}']
    ],
    seed: 1,
    secs: 10,
    options: { faults: ['freeze'], leases: [1, 1.5], poison: 0 },
    breaks: 'ghost'
  },
  {
    title: 'leases that run by the time of Redis expire while it is frozen, under consumers that live',
    file: 'store/redis/lua/clock.js',
    edits: [['math.max(0, math.min(now - contact, heartbeat))', 'math.max(0, now - contact)']],
    seed: 1,
    secs: 12,
    options: { faults: ['freeze'], leases: [1.3, 2], rate: 10, poison: 0, long: 0.5 },
    breaks: 'duplicate'
  },
  {
    title: 'suspects that run beside other tasks take them with them to the dead',
    file: 'store/redis/lua/due.js',
    edits: [
      ['p.deaths, p.suspect = p.deaths + p.suspect, 1', 'p.deaths, p.suspect = p.deaths + 1, 0'],
      ['give_back(k.suspects, abandoned)', 'give_back(k.waiting, abandoned)']
    ],
    seed: 1,
    secs: 8,
    options: { faults: [], rate: 10, poison: 6, long: 0.5 },
    breaks: 'innocent'
  },
  {
    title: 'a task is settled by an attempt whose lease was lost where nothing fences it off',
    file: 'store/redis/lua/leases.js',
    edits: [['return p.running and p.fence == fence', 'return p.running']],
    seed: 2,
    secs: 14,
    options: { faults: ['stop'], leases: [2, 2.3], rate: 2, kinds: ['chain'], poison: 0, long: 1 },
    breaks: 'fence'
  },
  {
    title: 'a rollback that leaves messages in the places where they were prepared leaves them there for ever',
    file: 'store/redis/commands/rollback.js',
    edits: [['if not tasks[i + 1] then', 'if false then']],
    seed: 1,
    secs: 10,
    options: { faults: ['freeze'], leases: [1, 1.5], poison: 0 },
    breaks: 'left'
  }
])
