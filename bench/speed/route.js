import Fastify from 'fastify'

export const PATH = '/task'

/** The payload of the n-th task: 200 bytes of JSON. */
export function payloadOf (n) {
  return { n: 1_000_000 + n, text: TEXT }
}

const TEXT = 'x'.repeat(177)

const schema = {
  body: {
    type: 'object',
    required: ['n', 'text'],
    additionalProperties: false,
    properties: { n: { type: 'integer' }, text: { type: 'string', maxLength: 1000 } }
  }
}

/** An app with the route that every contender's tasks are run by; `onTask` is told which one runs. */
export function makeApp (onTask) {
  return Fastify().register(async app => {
    app.post(PATH, { schema }, async ({ body }) => {
      onTask(body.n - 1_000_000)
      return {}
    })
  })
}

/** Runs a task of a rival as a request to the app. */
export async function inject (app, payload) {
  const { statusCode } = await app.inject({ method: 'POST', url: PATH, payload })
  if (statusCode >= 400) throw new Error(`the route answered with ${statusCode}`)
}
