// What `require('fastify-taskqueue')` returns: the plugin, with everything else as its properties.
import type * as esm from 'fastify-taskqueue' with { 'resolution-mode': 'import' }

declare function taskqueue (...params: Parameters<typeof esm.default>): ReturnType<typeof esm.default>

declare namespace taskqueue {
  export { taskqueue, taskqueue as default }
  export const errorCodes: typeof esm.errorCodes
  export const RECORD_LIMIT: typeof esm.RECORD_LIMIT
  export const SHOWN_BYTES: typeof esm.SHOWN_BYTES
  export const CANCELLED_MS: typeof esm.CANCELLED_MS
  export type AddedTask = esm.AddedTask
  export type AddOptions = esm.AddOptions
  export type Answer = esm.Answer
  export type AttemptStatus = esm.AttemptStatus
  export type Backoff = esm.Backoff
  export type BackoffList = esm.BackoffList
  export type Claim = esm.Claim
  export type CommitResult = esm.CommitResult
  export type ConsumerOptions = esm.ConsumerOptions
  export type CopyHeaders = esm.CopyHeaders
  export type Counts = esm.Counts
  export type CreateStore = esm.CreateStore
  export type DeadTask = esm.DeadTask
  export type Found = esm.Found
  export type Held = esm.Held
  export type Holding = esm.Holding
  export type Keep = esm.Keep
  export type Lease = esm.Lease
  export type NewTask = esm.NewTask
  export type News = esm.News
  export type OnDead = esm.OnDead
  export type OnDuplicate = esm.OnDuplicate
  export type Order = esm.Order
  export type Outlook = esm.Outlook
  export type Page = esm.Page
  export type Participant = esm.Participant
  export type Prepared = esm.Prepared
  export type Pulse = esm.Pulse
  export type Queue = esm.Queue
  export type QueueOptions = esm.QueueOptions
  export type RedisLocation = esm.RedisLocation
  export type RequestTask = esm.RequestTask
  export type RouteTaskToAdd<Input> = esm.RouteTaskToAdd<Input>
  export type RunningStatus = esm.RunningStatus
  export type Savepoint = esm.Savepoint
  export type Secret = esm.Secret
  export type Settlement = esm.Settlement
  export type State = esm.State
  export type Store = esm.Store
  export type StoreContext = esm.StoreContext
  export type StoreType = esm.StoreType
  export type TaskAnswer = esm.TaskAnswer
  export type TaskConfig = esm.TaskConfig
  export type TaskInput<Url extends string, RouteGeneric extends import('fastify').RouteGenericInterface, Schema extends import('fastify').FastifySchema, TypeProvider extends import('fastify').FastifyTypeProvider> =
    esm.TaskInput<Url, RouteGeneric, Schema, TypeProvider>
  export type TaskMethod = esm.TaskMethod
  export type TaskqueueOptions = esm.TaskqueueOptions
  export type Taskqueue = esm.Taskqueue
  export type TaskRoute<Input = unknown> = esm.TaskRoute<Input>
  export type TaskStatus = esm.TaskStatus
  export type TaskToAdd = esm.TaskToAdd
  export type Transaction = esm.Transaction
  export type Turn = esm.Turn
  export type TurnResult = esm.TurnResult
  export type UserOptions = esm.UserOptions
  export type Verdict = esm.Verdict
}

export = taskqueue
