import type { Held, Lease, Settlement, Turn, TurnResult, Verdict } from '../../turn.js'
import { KEYS } from '../keys.js'
import { adding } from '../lua/adding.js'
import { burying, dropping } from '../lua/burying.js'
import { choosing, claiming, lending } from '../lua/claiming.js'
import { clock, outlook } from '../lua/clock.js'
import { due } from '../lua/due.js'
import { leases } from '../lua/leases.js'
import { moving } from '../lua/moving.js'
import { gathering, preludeOf } from '../lua/prelude.js'
import { reserving } from '../lua/preparing.js'
import { settling } from '../lua/settling.js'
import { encodeTasks, reading } from '../lua/tasks.js'
import { encode, localsOf, type Script, type Values } from '../script.js'
import { type FlatOutlook, readOutlook } from './extend.js'

const PARAMS = {
  turn: 'number',
  heartbeat: 'number',
  lease_ms: 'number',
  limit: 'number',
  ahead: 'number',
  alone: 'number',
  keep_count: 'number',
  keep_ms: 'number',
  dead_count: 'number',
  dead_ms: 'number',
  reply_bytes: 'number',
  waits: 'number'
} as const

/**
 * Carries out the turn of a consumer. If `waits` is 1 and there is nothing to claim, the next turn of the consumer
 * waits until there is, and is then taken for it. Takes the keys of its queue, those of the queues of chained tasks,
 * and one key that holds the consumer's last turn. `alone` is 1 to claim a suspect instead. Settlements follow the
 * params, as `encodeSettlements` writes them. `readTurn` reads the reply.
 */
export const turn: Script = {
  keys: KEYS,
  body: /* lua */ `${gathering}${preludeOf(KEYS)}${moving}${reading}${reserving}${adding}${clock}${outlook}${leases}
${burying}${dropping}${localsOf(PARAMS)}read_time()
local k, last_turn = keys_of(0), KEYS[#KEYS]
if alone == 1 then limit = math.min(limit, 1) end
${lending}
-- Reads a turn that was taken; returns one of number 0 if there is none.
local function read_last (packed)
  local last = unpacked(packed or '')
  if not last or not finite(last.number) then return { number = 0 } end
  local has_leases = type(last.ids) == 'table' and type(last.fences) == 'table'
  return has_leases and type(last.settled) == 'table' and last or { number = 0 }
end

-- Fails before anything is written if a place to which tasks are chained is a key of another type.
for queue = 1, (#KEYS - 1) / ${KEYS.length} - 1 do
  local to = keys_of(queue)
  local sets = { to.delayed, to.running, to.dead, to.expiring, to.recent, to.ended }
  for _, set in ipairs(sets) do redis.call('ZCARD', set) end
  for _, hash in ipairs({ to.message, to.attempts, to.summary, to.stale, to.lane }) do redis.call('HLEN', hash) end
  for _, list in ipairs({ to.waiting, to.suspects }) do redis.call('LLEN', list) end
end

local last = read_last(redis.call('GET', last_turn))
if last.number > turn then return redis.error_reply('ERR this turn is over') end
local lease_clock, paused, is_set_back = tick(k, heartbeat)
local waiting = last.number < turn and redis.pcall('HGET', k.idle, last_turn)
if type(waiting) == 'string' then
  -- It waits no longer. If it has been taken for the consumer, this is what came of it.
  redis.call('HDEL', k.idle, last_turn)
  local handed = read_last(waiting)
  if handed.number == turn then
    last = handed
    redis.call('SET', last_turn, cmsgpack.pack(last), 'EX', 86400)
  end
end
if last.number == turn then
  local leases, shares = lend_again(last.ids, last.fences, lease_clock), is_shared(k) and 1 or 0
  return { { outlook(k, lease_clock, paused) }, last.settled, leases, finite(last.dropped) or 0, shares }
end
-- Others may wait for what this turn makes room for.
local was_blocked = is_shared(k) and (paused or lanes().claimable_in(k) ~= 0)
if is_shared(k) and is_set_back then lanes().refresh_all(k) end
${settling}${due}${claiming}${choosing}
local shares = look_again(k)
if limit > 0 then
  take_over()
  if expire() then
    move_due()
    if shares then lanes().end_rests(k) end
    if not paused then
      if shares then claim_shared(alone == 1 and limit or limit - ahead) else claim(limit) end
      end_claim()
      if shares then lanes().begin(k, 0) end
    end
  end
end
-- This comes late, since ids that are taken again have made room.
if #done > 0 or limit > 0 then pcall(keep_newest_ended, k, keep_count) end
local dropped = drop_dead(k, dead_count, dead_ms)
-- The last turn is kept for as long as its consumer may hand it in again.
local this_turn = { number = turn, settled = settled, ids = claimed, fences = fences, dropped = dropped }
redis.call('SET', last_turn, cmsgpack.pack(this_turn), 'EX', 86400)
if waits == 1 and #claimed == 0 and not paused and not shares then
  local parked = { number = turn + 1, at = now, heartbeat = heartbeat, lease_ms = lease_ms, limit = limit }
  redis.pcall('HSET', k.idle, last_turn, cmsgpack.pack(parked))
end
local left, left_suspects, slot_in = outlook(k, lease_clock, paused)
if was_blocked and left == 0 then wake(k) end
return { { left, left_suspects, slot_in }, settled, leases, dropped, shares and 1 or 0 }
`
}

/** What a turn asks for, apart from its settlements. */
export interface TurnTerms extends Pick<Turn, 'heartbeatMs' | 'claim' | 'keep' | 'keepDead'> {
  readonly number: number
  /** How many bytes of messages the reply may hold. */
  readonly replyBytes: number
}

export function encodeTurn (
  { number, heartbeatMs, claim, keep, keepDead, replyBytes }: TurnTerms, settlements: ReadonlyArray<string | number>
): Array<string | number> {
  const values: Values<typeof PARAMS> = {
    turn: number,
    heartbeat: Math.ceil(heartbeatMs),
    lease_ms: claim?.leaseMs ?? 0,
    limit: claim?.limit ?? 0,
    ahead: claim?.ahead ?? 0,
    alone: claim?.alone === true ? 1 : 0,
    keep_count: keep.count,
    keep_ms: keep.ms,
    dead_count: boundOf(keepDead?.count),
    dead_ms: boundOf(keepDead?.ms),
    reply_bytes: replyBytes,
    waits: claim?.waits === true ? 1 : 0
  }
  return encode(PARAMS, values, settlements)
}

/** Returns what the script takes for a bound: an empty text if there is none. */
const boundOf = (bound: number = Infinity): number | '' => bound === Infinity ? '' : bound

/** Returns for each settlement id, fence, verdict, record, the number of its chained tasks, and these tasks. */
export function encodeSettlements (
  settlements: readonly Settlement[], queues: readonly string[]
): Array<string | number> {
  return settlements.flatMap(({ lease: { id, fence }, verdict, record = '', dedupeMs, chain = [] }) => {
    const tasks = chain.filter(task => queues.includes(task.queue))
    return [id, fence, textOf(verdict, dedupeMs), record, tasks.length, ...encodeTasks(tasks, queues)]
  })
}

/** Returns "verdict ms reason". The milliseconds are a delay, or `dedupeMs` of a task that is done. */
function textOf (verdict: Verdict, dedupeMs = 0): string {
  switch (verdict.kind) {
    case 'done': return dedupeMs === 0 ? 'done' : `done ${dedupeMs} `
    case 'retry': return `retry ${Math.ceil(verdict.delayMs)} ${verdict.reason}`
    case 'defer': {
      const kind = verdict.unrouted === true ? 'unrouted' : verdict.busy === true ? 'busy' : 'defer'
      return `${kind} ${Math.ceil(verdict.delayMs)} ${verdict.reason}`
    }
    case 'dead': return `dead 0 ${verdict.reason}`
    case 'release': return `${verdict.unseen === true ? 'unseen' : 'release'} 0 `
  }
}

/** Fetches the message of a lease, if it was too large for a reply. */
export type FetchMessage = (lease: Held, length: number, signal: AbortSignal) => Promise<string | undefined>

/**
 * The outlook, 0 or 1 for each settlement, three values for each lease, how many dead letters were dropped, and 1 if
 * the queue has lanes or limits.
 */
type TurnReply = [
  outlook: FlatOutlook, settled: Array<0 | 1>, leases: Array<string | null>, dropped: number, isShared: 0 | 1
]

export function readTurn (reply: unknown, fetch: FetchMessage): TurnResult {
  const [outlook, settled, leases, dropped, isShared] = reply as TurnReply
  return {
    outlook: readOutlook(outlook),
    settled: settled.map(Boolean),
    leases: readLeases(leases, fetch),
    ...dropped > 0 && { dropped },
    ...isShared === 1 && { isShared: true }
  }
}

/** Leases that Redis has handed over, in the turn of that number, which it has taken for the consumer. */
export interface Handed { readonly number: number, readonly leases: readonly Lease[] }

/** Reads what is published to a consumer that waits; undefined if no script can have written it. */
export function readHanded (text: string, fetch: FetchMessage): Handed | undefined {
  try {
    const [number, values] = JSON.parse(text) as [unknown, unknown[]]
    const isHanded = Number.isSafeInteger(number) && values.length > 0 && values.length % 3 === 0 &&
      values.every((value, index) => index % 3 === 1 && value === false ? true : typeof value === 'string')
    if (!isHanded) return undefined
    const leases = readLeases(values.map(value => value === false ? null : value as string), fetch)
    const areLeases = leases.every(({ id, fence }) => /^[\x20-\x7e]+$/.test(id) && Number.isSafeInteger(fence))
    return areLeases ? { number: number as number, leases } : undefined
  } catch {
    return undefined
  }
}

/**
 * Reads leases. Each has three values: its id, its message and its counts. If the message was too large, the second
 * value is null, and the length of the message stands before the counts.
 */
function readLeases (flat: ReadonlyArray<string | null>, fetch: FetchMessage): Lease[] {
  const leases: Lease[] = []
  for (let i = 0; i < flat.length; i += 3) {
    const id = flat[i]!
    const message = flat[i + 1]!
    const numbers = flat[i + 2]!.split(' ', 9).map(Number)
    const length = message === null ? numbers.shift()! : 0
    const [
      fence, attempt = 1, retries = 0, deaths = 0, suspect = 0, , deferredMs = 0, unroutedMs = 0
    ] = numbers as [number, ...number[]]
    leases.push({
      id,
      message: message ?? (signal => fetch({ id, fence }, length, signal)),
      fence,
      attempt,
      retries,
      deferredMs,
      unroutedMs,
      deaths,
      suspect: suspect === 1
    })
  }
  return leases
}
