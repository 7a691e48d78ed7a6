import { fork } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import taskqueue from '../../lib/index.js'
import { appOf, cases, protocols, tlsOfClient, type Case, type Protocol } from './heads/cases.js'
import { RecordingStore } from '../support/recording-store.js'

// What Node refuses to send is refused before the tasks are queued, and nothing else is.

t.test('a task is queued if and only if its request succeeds, which it does if Fastify can send its head', async t => {
  const plain = fork(fileURLToPath(new URL('heads/app.js', import.meta.url)))
  t.teardown(() => plain.kill())
  const [ports] = await once(plain, 'message') as [number[]]
  await Promise.all(protocols.map((protocol, index) => t.test(protocol, async t => {
    const { port, ids } = await start(t, protocol)
    const wrong: object[] = []
    let refused = 0
    for (const [number, given] of casesOf(protocol).entries()) {
      const status = await request(protocol, port, given, `${number}`)
      const succeeds = isSuccess(status)
      const isQueued = ids.at(-1) === `${number}`
      const wouldSucceed = isSuccess(await request(protocol, ports[index]!, given, ''))
      if (!succeeds) refused++
      const isAnswered = succeeds || status === 500 || given.head === 'a head that was sent'
      const isAsWithout = succeeds === wouldSucceed || isForgiven(protocol, given)
      const isRight = isAnswered && isAsWithout && isQueued === succeeds
      if (!isRight) wrong.push({ ...given, status, isQueued, wouldSucceed })
    }
    t.same(wrong, [])
    t.ok(refused > 20, `${refused} were refused`)
  })))
})

t.test('a task is queued if and only if its request succeeds, without a connection', async t => {
  const { app, ids } = await start(t, 'http')
  const wrong: object[] = []
  for (const [index, { method, ...query }] of cases.entries()) {
    const id = `${index}`
    const injected = app.inject({ method, path: '/', query: { ...query, id } })
    const statusCode = await injected.then(response => response.statusCode, () => undefined)
    if ((ids.at(-1) === id) !== isSuccess(statusCode)) wrong.push({ method, ...query, statusCode })
  }
  t.same(wrong, [])
})

/** Over TLS a reply is made as without it. */
function casesOf (protocol: Protocol): Case[] {
  if (protocol !== 'https') return cases
  return cases.filter(({ method, payload }) => method === 'GET' && ['JSON', 'a stream'].includes(payload))
}

/** Node's own client takes a malformed reply over HTTP/2; others do not. */
function isForgiven (protocol: Protocol, { head }: Case): boolean {
  return protocol === 'http2' && /^a value .*(two lines|NUL)/.test(head)
}

async function start (t: { teardown (run: () => unknown): void }, protocol: Protocol) {
  const store = new RecordingStore()
  const app = appOf(protocol, ({ query, taskqueue }) => {
    taskqueue.add('/task', { id: (query as { id: string }).id })
  })
  await app.register(taskqueue, { queues: { default: { type: () => store } }, consumer: false })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const ids: string[] = []
  store.batches.push = (...batches) => {
    ids.push(...batches.flat().map(({ id }) => id))
    return 0
  }
  t.teardown(() => app.close())
  return { app, port: (app.server.address() as AddressInfo).port, ids }
}

const isSuccess = (status: number | undefined) => status !== undefined && status >= 200 && status < 400

/** Makes a request on a connection of its own; returns the status of a reply that has come whole. */
async function request (
  protocol: Protocol, port: number, { method, ...query }: Case, id: string
): Promise<number | undefined> {
  const path = `/?${String(new URLSearchParams({ ...query, id }))}`
  return await (protocol === 'http2' ? requestHttp2(port, method, path) : requestHttp1(protocol, port, method, path))
}

async function requestHttp1 (
  protocol: 'http' | 'https', port: number, method: string, path: string
): Promise<number | undefined> {
  return await new Promise(resolve => {
    const fail = () => { resolve(undefined) }
    const client = protocol === 'https' ? https : http
    client.request({ host: '127.0.0.1', port, method, path, agent: false, ...tlsOfClient }, response => {
      const end = () => { resolve(response.complete ? response.statusCode : undefined) }
      response.on('error', fail).on('end', end).resume()
    }).on('error', fail).end()
  })
}

async function requestHttp2 (port: number, method: string, path: string): Promise<number | undefined> {
  const session = http2.connect(`http://127.0.0.1:${port}`)
  try {
    return await new Promise(resolve => {
      const fail = () => { resolve(undefined) }
      let status: number | undefined
      const stream = session.on('error', fail).request({ ':method': method, ':path': path })
      stream.on('response', headers => { status = headers[':status'] })
      stream.on('error', fail).on('close', () => { resolve(stream.rstCode === 0 ? status : undefined) }).resume()
    })
  } finally {
    // To destroy it while its end is on the way is what Node 20 can abort at, when it collects the garbage.
    session.close()
  }
}
