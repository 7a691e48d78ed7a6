import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'

// The examples do what they say, as they are run.

t.setTimeout(120_000)

const run = promisify(execFile)
const output = async (...args: string[]) => {
  const { stdout } = await run(process.execPath, args, { env: { ...process.env, REDIS_URL: undefined, NODE_V8_COVERAGE: undefined, TAP: undefined, NO_COLOR: '1' } })
  return stdout
}

for (const [name, expected] of [
  ['time', /^call Ada\ndone\nthe tea is ready\ndone\nexpired\n$/],
  ['ids', /^202\n(?:.*\n)*409\n\{ added: false \}\nindex abc\n$/],
  ['status', /progress: \{ percent: \d+ \} \}\n\{ state: 'done', report: \{ month: 11, total: 4711 \} \}\n$/],
  ['operate', /waiting: 10000, .*paused: true(?:.*\n)+.*"redriven":1000/]
] as const) {
  t.test(`example/${name}.ts`, async t => {
    t.match(await output(`build/example/${name}.js`), expected)
  })
}

for (const [runner, ...args] of [
  ['node', '--test'],
  ['vitest', 'node_modules/vitest/vitest.mjs', 'run'],
  ['tap']
] as Array<[string, ...string[]]>) {
  t.test(`a test of tasks with ${runner}`, async t => {
    const passed = await output(...args, `build/example/testing/${runner}.test.js`)
    t.match(passed, /\b(?:pass 2|2 passed|pass: 6)\b/)
  })
}
