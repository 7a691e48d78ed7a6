import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import t from 'tap'

const files = readdirSync('lib', { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.ts'))

/** The files of lib that each of them imports, types included. */
const imports = new Map(files.map(file => {
  const specifiers = readFileSync(join('lib', file), 'utf8').matchAll(/(?:from|import\()\s*'(\.[^']+)\.js'/g)
  return [file, [...specifiers].map(([, path]) => `${normalize(join(dirname(file), path!))}.ts`)]
}))

t.test('imports of lib lead to files, and go round in no circle', async t => {
  const checked = new Set<string>()
  const circles: string[] = []
  const visit = (file: string, path: readonly string[]) => {
    if (path.includes(file)) circles.push([...path.slice(path.indexOf(file)), file].join(' → '))
    if (checked.has(file) || path.includes(file)) return
    for (const other of imports.get(file) ?? []) visit(other, [...path, file])
    checked.add(file)
  }
  for (const file of files) visit(file, [])
  t.strictSame(circles, [])
  t.strictSame([...imports.values()].flat().filter(file => !imports.has(file)), [])
  t.ok(files.length > 100 && checked.size === files.length)
})
