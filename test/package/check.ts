// Packs the package, has it linted, installs it where a user would, and uses it there from
// JavaScript and TypeScript. Needs a build, and the npm registry.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../../..')
const { name, peerDependencies, devDependencies } = readJson(join(root, 'package.json'))
const lowestFastify = peerDependencies.fastify.replace('^', '')
const typescripts = ['5.9.3', '6.0.3', '7.0.2']
const nodes = ['22', '24']

const program = `
const fastify = require('fastify')
module.exports = async plugin => {
  const app = fastify()
  await app.register(plugin)
  const task = new Promise(resolve => {
    app.post('/task', { constraints: { taskOnly: true } }, async request => resolve([request.task.id, request.body]))
  })
  app.get('/', async request => request.taskqueue.add('/task', { payload: { a: 1 } }))
  const { statusCode, body } = await app.inject('/')
  require('assert').deepEqual([statusCode, await task], [200, [body, { a: 1 }]])
  await app.close()
}`
const programs: Record<string, string> = {
  'import.js': `import run from './run.cjs'; import plugin from '${name}'; await run(plugin)`,
  'require.cjs': `require('./run.cjs')(require('${name}'))`,
  'require-taskqueue.cjs': `require('./run.cjs')(require('${name}').taskqueue)`,
  'require-default.cjs': `require('./run.cjs')(require('${name}').default)`,
  'both.js': `
    import assert from 'node:assert'; import { createRequire } from 'node:module'; import * as imported from '${name}'
    const required = createRequire(import.meta.url)('${name}')
    for (const name of ['default', 'taskqueue', 'errorCodes']) assert.ok(required[name] === imported[name] && imported[name])
    assert.equal(imported.storeConformance, undefined)`,
  // OpenTelemetry is not installed here.
  'subpaths.js': `
    import assert from 'node:assert'; import { createRequire } from 'node:module'
    const require = createRequire(import.meta.url)
    for (const path of ['dashboard', 'metrics']) {
      const { default: plugin } = await import('${name}/' + path)
      assert.equal(typeof plugin, 'function')
      assert.equal(require('${name}/' + path).default, plugin)
    }
    await assert.rejects(import('${name}/otel'), /@opentelemetry\\/api/)`,
  'conformance.js': `
    import assert from 'node:assert'; import { createRequire } from 'node:module'
    import { storeConformance } from '${name}/conformance'
    assert.equal(createRequire(import.meta.url)('${name}/conformance').storeConformance, storeConformance)
    // Any test of the suite fails on a store that does not open, and the suite closes it all the same.
    let closed = 0
    const store = { open: async () => { throw new Error('not open') }, close: async () => { closed++ } }
    const tests = storeConformance(() => store)
    for (const { title, run } of tests) await assert.rejects(run(), { message: 'not open' }, title)
    assert.ok(tests.length > 0 && closed === tests.length)`
}

const strict = { strict: true, skipLibCheck: false, noEmit: true, target: 'es2023', types: ['node'] }
const dialects = [
  {
    title: 'module nodenext, ESM and CommonJS, with exactOptionalPropertyTypes',
    files: ['consumer.ts', 'consumer.cts', 'require.cts'],
    compilerOptions: { ...strict, module: 'nodenext', exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true }
  },
  {
    title: 'module preserve, moduleResolution bundler',
    files: ['consumer.ts'],
    compilerOptions: { ...strict, module: 'preserve', moduleResolution: 'bundler' }
  }
]

const stopping = new AbortController()
const dir = mkdtempSync(join(tmpdir(), `${name}-`))
try {
  await checkPackage()
} catch (error) {
  console.error(error instanceof assert.AssertionError ? error.message : error)
  process.exitCode = 1
} finally {
  stopping.abort()
  rmSync(dir, { recursive: true, force: true, maxRetries: 10 })
}

async function checkPackage (): Promise<void> {
  // Without its scripts, which would build the package under this program's feet.
  const [{ filename, files }] = JSON.parse(await run(root, 'npm', 'pack', '--ignore-scripts', '--json', '--pack-destination', dir))
  const tarball = join(dir, filename)
  const sources = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' })
    .filter(file => file.endsWith('.ts')).map(file => file.replace(/\.ts$/, ''))
  assert.deepEqual(files.map(({ path }: { path: string }) => path).sort(), [
    'package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'lib/commonjs.cjs', 'lib/commonjs.d.cts',
    ...sources.flatMap(source => [`lib/${source}.ts`, ...['js', 'js.map', 'd.ts'].map(type => `build/lib/${source}.${type}`)])
  ].sort())
  ok(`${files.length} files are packed: lib, what is built from it, and the documents`)

  const fastify = `fastify@${peerDependencies.fastify}`
  const dev = ['@types/node', '@fastify/auth', '@opentelemetry/api'].map(name => `${name}@${devDependencies[name]}`)
  const [javascript, typescript, runtimes] = await Promise.all([
    install('javascript', tarball, `fastify@${lowestFastify}`),
    install('typescript', tarball, fastify, ...dev, ...typescripts.map(version => `typescript-${version}@npm:typescript@${version}`)),
    install('nodes', ...nodes.map(version => `node-${version}@npm:${nodePackage()}@${version}`))
  ])
  const { packages } = readJson(join(javascript, 'node_modules/.package-lock.json'))
  const installing = Object.keys(packages).filter(path => packages[path].hasInstallScript)
  assert.deepEqual(installing, [], 'no package runs a script when it is installed')
  ok(`it installs in an empty project, with ${Object.keys(packages).length - 1} other packages, none of which runs a script`)
  checkMaps(join(javascript, 'node_modules', name, 'build/lib'))

  writeFileSync(join(javascript, 'run.cjs'), program)
  for (const [file, text] of Object.entries(programs)) writeFileSync(join(javascript, file), text)
  const consumer = readFileSync(join(root, 'test/package/consumer.ts'))
  for (const file of ['consumer.ts', 'consumer.cts']) writeFileSync(join(typescript, file), consumer)
  writeFileSync(join(typescript, 'require.cts'), readFileSync(join(root, 'test/package/require.cts')))
  // All declarations of the package, also those that the consumer's imports do not lead to.
  const declarations = sources.map(source => `node_modules/${name}/build/lib/${source}.d.ts`)

  const checks = [
    async () => {
      await run(root, 'npm', 'exec', '--no', '--', 'publint', 'run', '--strict', tarball)
      await run(root, 'npm', 'exec', '--no', '--', 'attw', '--profile', 'esm-only', '--quiet', tarball)
      ok('publint and attw find nothing wrong')
    },
    ...[process.execPath, ...nodes.map(version => join(runtimes, `node_modules/node-${version}/bin/node`))].map(node => async () => {
      for (const file of Object.keys(programs)) assert.equal(await run(javascript, node, file), '', `${file} prints nothing`)
      ok(`Node ${(await run(javascript, node, '--version')).trim()}, Fastify ${lowestFastify}: import and require give the same plugin, whose tasks run`)
    }),
    ...dialects.flatMap(({ title, files, compilerOptions }, index) => typescripts.map(version => async () => {
      const config = `tsconfig.${version}.${index}.json`
      writeFileSync(join(typescript, config), JSON.stringify({ compilerOptions, files: [...files, ...declarations] }))
      await run(typescript, process.execPath, `node_modules/typescript-${version}/bin/tsc`, '--project', config)
      ok(`TypeScript ${version}: ${title}`)
    }))
  ]
  // Two at a time.
  await Promise.all([1, 2].map(async () => {
    for (let check = checks.shift(); check !== undefined; check = checks.shift()) await check()
  }))
}

/** Installs packages in an empty project, and returns where that is. */
async function install (project: string, ...packages: string[]): Promise<string> {
  const path = join(dir, project)
  mkdirSync(path)
  writeFileSync(join(path, 'package.json'), JSON.stringify({ private: true, type: 'module' }))
  await run(path, 'npm', 'install', '--no-audit', '--no-fund', '--prefer-offline', ...packages)
  return path
}

/** Where npm has the executables of Node for this machine. */
function nodePackage (): string {
  const platform = process.platform === 'win32' ? 'win' : process.platform
  return `node-${platform}-${process.arch}`
}

/** Source maps lead to sources that are packed, and `@internal` members leave the declarations. */
function checkMaps (path: string): void {
  for (const file of readdirSync(path, { recursive: true, encoding: 'utf8' })) {
    if (file.endsWith('.map')) {
      const { sources } = readJson(join(path, file))
      for (const source of sources) readFileSync(join(path, dirname(file), source))
    } else if (file.endsWith('.d.ts')) {
      assert.doesNotMatch(readFileSync(join(path, file), 'utf8'), /@internal/, file)
    }
  }
  ok('source maps lead to sources that are packed, and declarations show nothing internal')
}

/** Returns what a program prints; rejects with it when the program fails. */
function run (cwd: string, file: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    // In one go, since npm is a script on Windows.
    const options = { cwd, signal: stopping.signal, timeout: 300_000, maxBuffer: 64 * 1024 * 1024, shell: process.platform === 'win32' && file === 'npm' }
    execFile(file, args, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new assert.AssertionError({ message: `not ok – ${basename(dirname(cwd))}/${basename(cwd)}: ${file} ${args.join(' ')}\n${stdout}${stderr}` }))
    })
  })
}

function readJson (path: string) {
  return JSON.parse(readFileSync(path, 'utf8'))
}

function ok (sentence: string): void {
  console.log(`ok – ${sentence}`)
}
