import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, posix, resolve } from 'node:path'
import t, { type Test } from 'tap'
import ts from 'typescript'
import { errorCodes } from '../../lib/index.js'
import { KEYS } from '../../lib/store/redis/keys.js'
import { endWithMe, freePort, startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { namesIn, readPage, readPages, type Block } from './pages.js'

// The documentation says what is so: its links lead somewhere, its code compiles and runs, and its references are complete.

t.setTimeout(300_000)

/** What everybody knows. */
const KNOWN: Record<string, string> = {
  app: "import('fastify').FastifyInstance",
  request: "import('fastify').FastifyRequest",
  reply: "import('fastify').FastifyReply",
  taskqueue: "typeof import('fastify-taskqueue').default"
}

const root = resolve(import.meta.dirname, '../../..')
const pages = readPages(root)
const readme = pages.get('README.md')!
const dir = mkdtempSync(join(root, 'build/docs-'))
t.teardown(() => { rmSync(dir, { recursive: true }) })

t.test('a page is read as it is shown', async t => {
  const { blocks, links, anchors, tables } = readPage('a.md', [
    '# A `b()`: c', '## Twice', '## Twice', '[x](y.md#z) and `[no](link)`', '<!-- given: app; n: number -->', '```ts', '# not a heading', '[no](link)', '```',
    '<!-- members of: Some -->', '', '| name | default |', '| --- | --- |', '| `one(a)`, `two` | 1 \\| 2 |', 'text', '| `three` |'
  ].join('\n'))
  t.strictSame([...anchors], ['a-b-c', 'twice', 'twice-1'])
  t.strictSame(links, [{ page: 'a.md', line: 4, target: 'y.md#z' }])
  t.match(blocks, [{ line: 7, language: 'ts', given: ['app', 'n: number'], isRun: false }])
  t.strictSame(tables, [{ page: 'a.md', of: 'Some', rows: [['`one(a)`, `two`', '1 \\| 2']] }])
  t.strictSame(namesIn(tables[0]!.rows[0]![0]!), ['one', 'two'])
})

t.test('every link leads to a file, and to a heading of it', async t => {
  const wrong: string[] = []
  for (const { page, line, target } of [...pages.values()].flatMap(({ links }) => links)) {
    if (/^[a-z]+:/.test(target)) continue
    const [path = '', fragment] = target.split('#')
    const file = path === '' ? page : posix.join(posix.dirname(page), path)
    const isThere = existsSync(join(root, file)) && (fragment === undefined || pages.get(file)?.anchors.has(fragment) === true)
    if (!isThere) wrong.push(`${page}:${line}: ${target}`)
  }
  t.strictSame(wrong, [])
})

t.test('every page can be reached from the README', async t => {
  const reached = new Set(['README.md'])
  for (const page of reached) {
    for (const { target } of pages.get(page)!.links) {
      const file = posix.join(posix.dirname(page), target.split('#')[0]!)
      if (pages.has(file)) reached.add(file)
    }
  }
  t.strictSame([...pages.keys()].filter(path => path.startsWith('docs/') && !reached.has(path)), [])
})

t.test('the README has 9,000 bytes at most', async t => {
  t.ok(Buffer.byteLength(readme.text) <= 9000, `it has ${Buffer.byteLength(readme.text)}`)
})

const blocks = [...pages.values()].flatMap(page => page.blocks).filter(({ language }) => ['js', 'ts'].includes(language))
const program = programOf(blocks)

t.test('every block of code compiles', async t => {
  t.ok(blocks.length > 20, `there are ${blocks.length}`)
  t.strictSame(program.getOptionsDiagnostics().map(textOf), [])
  for (const [index, block] of blocks.entries()) {
    const source = program.getSourceFile(fileOf(block, index))!
    const found = [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)]
      // JavaScript has no way to say what the body of a request is.
      .filter(diagnostic => block.language === 'ts' || !textOf(diagnostic).includes("type 'unknown'"))
      .map(diagnostic => {
        const { line } = source.getLineAndCharacterOfPosition(diagnostic.start!)
        return `${block.page}:${block.line + line - preludeOf(block).length}: ${textOf(diagnostic)}`
      })
    t.strictSame(found, [], `${block.page}:${block.line}`)
  }
})

t.test('every block that can run by itself prints what the text says', async t => {
  const runs = blocks.filter(({ isRun }) => isRun)
  t.ok(runs.length > 0)
  for (const block of runs) {
    const { output } = run(t, 'run', block.code)
    const all = pages.get(block.page)!.blocks
    const expected = all[all.indexOf(block) + 1]!
    t.equal(expected.language, 'text', `${block.page}:${block.line} says what it prints`)
    t.equal(await output, `${expected.code}\n`, `${block.page}:${block.line}`)
  }
})

for (const type of ['local', 'redis']) {
  t.test(`the first program of the README does what the README says, with a ${type} queue`, async t => {
    const [first, second] = readme.blocks.filter(({ language }) => language === 'js') as [Block, Block]
    const [answer, prints] = readme.blocks.filter(({ language }) => ['json', 'text'].includes(language)) as [Block, Block]
    const curl = /^curl (\S+) -H '([^:]+): ([^']+)' -d '([^']+)'$/m.exec(readme.text)
    if (curl === null) throw new Error('the README has no call of curl')
    const port = String(await freePort())
    let code = first.code
    if (type === 'redis') {
      const location = `unix://${(await startRedis(t)).path}`
      code = code.replace(/^await app\.register\(taskqueue.*$/m, second.code.replace(/redis:\/\/[^']+/, location))
      t.match(code, location)
    }
    const { child, output, printed } = run(t, 'readme', code.replaceAll('3000', port))
    await until(async () => printed() !== '')
    const [, url, name, value, body] = curl as unknown as string[]
    const response = await fetch(url!.replaceAll('3000', port), { method: 'POST', headers: { [name!]: value! }, body })
    t.equal(response.status, 202)
    t.match(await response.text(), new RegExp(`^${answer.code.replaceAll(/[{}"]/g, '\\$&').replace('…', '[\\w-]+')}$`))
    await until(async () => printed().split('\n').length > prints.code.split('\n').length)
    child.kill()
    t.equal((await output).replaceAll(port, '3000'), `${prints.code}\n`)
  })
}

t.test('every error is in the reference, with the status that it has', async t => {
  const rows = tableOf('errorCodes')
  t.strictSame(rows.flatMap(([code]) => namesIn(code!)).sort(), Object.keys(errorCodes).sort())
  for (const [code, status] of rows) {
    const Made = errorCodes[namesIn(code!)[0] as keyof typeof errorCodes] as unknown as new () => { statusCode: number }
    t.equal(status, String(new Made().statusCode), code!)
  }
})

// What is here has a table in the reference, whose rows are its members.
const TYPES = [
  'TaskqueueOptions', 'UserOptions', 'QueueOptions', 'Limits', 'Rate', 'ConsumerOptions', 'AddOptions', 'TaskConfig',
  'Transaction', 'Taskqueue', 'Queue', 'RequestTask', 'TaskStatus', 'AttemptStatus', 'AddedTask', 'Store', 'StoreContext',
  'Events', 'CommitTrace', 'AttemptTrace', 'QueueHealth', 'ProcessStatus', 'ScheduleTiming', 'TaskSchedule',
  'ScheduleStatus'
]

for (const name of TYPES) {
  t.test(`every member of ${name} is in the reference, with its default where that is a number`, async t => {
    const checker = program.getTypeChecker()
    const lib = checker.getSymbolAtLocation(program.getSourceFile(join(root, 'lib/index.ts'))!)!
    const symbol = checker.getExportsOfModule(lib).find(symbol => symbol.name === name)!
    const members = checker.getDeclaredTypeOfSymbol(symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol).getProperties()
      .filter(member => !/^(?:#|__)/.test(member.name) && !member.getJsDocTags().some(({ name }) => name === 'internal'))
    const rows = tableOf(name)
    t.strictSame(rows.flatMap(([cell]) => namesIn(cell!)).sort(), members.map(({ name }) => name).sort())
    for (const member of members) {
      const said = member.getJsDocTags().find(({ name }) => name === 'default')?.text?.map(({ text }) => text).join('')
      const value = /^\d+\b(?! *[a-z])/.exec(said ?? '')?.[0]
      if (value === undefined) continue
      const cell = rows.find(([cell]) => namesIn(cell!).includes(member.name))?.[1] ?? ''
      t.ok(cell.replaceAll(/[ ,_]/g, '').includes(value), `${member.name}: ${value} is in "${cell}"`)
    }
  })
}

t.test('every key of a queue is in the layout of Redis', async t => {
  const { text } = pages.get('docs/internals/redis-layout.md')!
  t.strictSame(KEYS.filter(key => !text.includes(`| \`taskqueue:{mail}:${key}\` |`)), [])
})

t.test('a guarantee names the tests that show it, and how many there are of those that can be counted', async t => {
  const { text } = pages.get('docs/guarantees.md')!
  const rows = text.split('\n').filter(line => /^\| \d+ \|/.test(line))
  t.strictSame(rows.map(row => Number(row.split('|')[1])), rows.map((_, index) => index + 1))
  for (const row of rows) t.match(row, /\]\(\.\.\/(?:test|lib\/store\/conformance)/)
  const { storeConformance } = await import(conformanceIn('build', 'js'))
  t.equal(/(\d+) tests on each store/.exec(text)![1], String(storeConformance(() => {}).length))
})

/** The rows of the one table of what has this name. */
function tableOf (name: string): ReadonlyArray<readonly string[]> {
  const found = [...pages.values()].flatMap(({ tables }) => tables).filter(table => table.of === name)
  if (found.length !== 1) throw new Error(`there are ${found.length} tables of ${name}`)
  return found[0]!.rows
}

/** Where the suite for stores is: in what package.json exports, or where it was before it did. */
function conformanceIn (folder: string, extension: string): string {
  const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const path: string = exports['./conformance']?.default ?? './build/lib/store/conformance/conformance.js'
  return join(root, path.replace('./build', folder).replace(/js$/, extension))
}

function fileOf ({ page, line }: Block, index: number): string {
  return join(dir, `${index}-${page.replaceAll(/\W/g, '-')}-${line}.ts`)
}

/** What stands before the code of a block, so that it compiles. */
function preludeOf ({ page, line, given }: Block): string[] {
  const declarations = given.map(each => {
    const [, name = '', type = KNOWN[name]] = /^(\w+)(?:: (.*))?$/.exec(each) ?? []
    if (type === undefined) throw new Error(`${page}:${line}: what type has ${each}?`)
    return `declare const ${name}: ${type}`
  })
  return [...declarations, "import 'fastify-taskqueue'", 'export {}']
}

/** One program of all blocks, against the sources of the library. */
function programOf (blocks: readonly Block[]): ts.Program {
  const files = blocks.map((block, index) => {
    const file = fileOf(block, index)
    writeFileSync(file, [...preludeOf(block), block.code, ''].join('\n'))
    return file
  })
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile)
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, root)
  return ts.createProgram([...files, join(root, 'lib/index.ts')], {
    ...options,
    outDir: undefined,
    declaration: false,
    sourceMap: false,
    noEmit: true,
    noUnusedLocals: false,
    noUnusedParameters: false,
    strict: true,
    paths: { 'fastify-taskqueue': [join(root, 'lib/index.ts')], 'fastify-taskqueue/conformance': [conformanceIn('.', 'ts')] }
  })
}

function textOf ({ messageText }: ts.Diagnostic): string {
  return ts.flattenDiagnosticMessageText(messageText, '\n')
}

/** Runs a program that finds the package as it was built. */
function run (t: Test, name: string, code: string): { child: ChildProcess, output: Promise<string>, printed: () => string } {
  const file = join(mkdtempSync(join(dir, `${name}-`)), 'app.mjs')
  const { outputText } = ts.transpileModule(code, { compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true } })
  writeFileSync(file, outputText)
  // Without what this test's own runner adds.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(?:NODE_|TAP|_TAPJS|REDIS_URL$)/.test(name)))
  const child = endWithMe(spawn(process.execPath, [file], { cwd: dirname(file), env, stdio: ['ignore', 'pipe', 'pipe'] }))
  t.teardown(() => { child.kill('SIGKILL') })
  let printed = ''
  for (const stream of [child.stdout!, child.stderr!]) stream.setEncoding('utf8').on('data', text => { printed += text })
  return { child, printed: () => printed, output: new Promise(resolve => { child.once('close', () => { resolve(printed) }) }) }
}
