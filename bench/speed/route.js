import Fastify from 'fastify'

/** @import { FastifyInstance, FastifyRequest } from 'fastify' */

/** @typedef {{ n: number, text: string }} Payload */

export const PATH = '/task'

/** What is added to the number of a task in its payload, so that all payloads are of one size. */
const FIRST = 1_000_000
const TEXT = 'x'.repeat(177)

/**
 * The payload of the n-th task: 200 bytes of JSON.
 *
 * @param {number} n
 * @returns {Payload}
 */
export function payloadOf (n) { return { n: FIRST + n, text: TEXT } }

/**
 * Which task has this payload.
 *
 * @param {Payload} payload
 */
export function numberOf ({ n }) { return n - FIRST }

const schema = {
  body: {
    type: 'object',
    required: ['n', 'text'],
    additionalProperties: false,
    properties: { n: { type: 'integer' }, text: { type: 'string', maxLength: 1000 } }
  }
}

/**
 * An app with the route that every contender's tasks are run by.
 *
 * @param {(n: number) => void} onTask Is told which one runs.
 */
export function makeApp (onTask) {
  const app = Fastify()
  app.register(async app => {
    app.post(PATH, { schema }, /** @param {FastifyRequest<{ Body: Payload }>} request */ async ({ body }) => {
      onTask(numberOf(body))
      return {}
    })
  })
  return app
}

/**
 * Runs a task of a rival as a request to the app.
 *
 * @param {FastifyInstance} app
 * @param {Payload} payload
 */
export async function inject (app, payload) {
  const { statusCode } = await app.inject({ method: 'POST', url: PATH, payload })
  if (statusCode >= 400) throw new Error(`the route answered with ${statusCode}`)
}
