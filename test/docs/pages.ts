// Reads Markdown as far as the checks of the documentation need it.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A fenced block of code, and what comments before it say of it. */
export interface Block {
  readonly page: string
  /** Where its code begins, counted from 1. */
  readonly line: number
  readonly language: string
  readonly code: string
  /** What the text around it has introduced: names, or names with their types. */
  readonly given: readonly string[]
  /** Whether it can run by itself, and prints what the next block says. */
  readonly isRun: boolean
}

/** A table whose rows are the members of a type. */
export interface Table {
  readonly page: string
  readonly of: string
  readonly rows: ReadonlyArray<readonly string[]>
}

export interface Link { readonly page: string, readonly line: number, readonly target: string }

export interface Page {
  readonly path: string
  readonly text: string
  readonly blocks: readonly Block[]
  readonly links: readonly Link[]
  /** What fragments of links can name. */
  readonly anchors: ReadonlySet<string>
  readonly tables: readonly Table[]
}

/** The pages of a repository, by their paths. */
export function readPages (root: string): Map<string, Page> {
  const here = readdirSync(root).filter(name => /^(?:README|SECURITY|CONTRIBUTING|CHANGELOG)\.md$/.test(name))
  const docs = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.md'))
  const paths = [...here, ...docs.map(name => `docs/${name.replaceAll('\\', '/')}`)]
  return new Map(paths.map(path => [path, readPage(path, readFileSync(join(root, path), 'utf8'))]))
}

export function readPage (page: string, text: string): Page {
  const blocks: Block[] = []
  const links: Link[] = []
  const tables: Array<{ page: string, of: string, rows: string[][] }> = []
  const anchors = new Set<string>()
  let fence: { readonly language: string, readonly line: number, readonly lines: string[] } | undefined
  let given: string[] = []
  let isRun = false
  let isTable = false
  text.split('\n').forEach((line, index) => {
    const mark = /^```(\w*)/.exec(line)
    if (fence !== undefined) {
      if (mark === null) {
        fence.lines.push(line)
        return
      }
      blocks.push({ page, line: fence.line, language: fence.language, code: fence.lines.join('\n'), given, isRun })
      given = []
      isRun = false
      fence = undefined
      return
    }
    if (mark !== null) fence = { language: mark[1]!, line: index + 2, lines: [] }
    const comment = /^<!-- (given|run|members of)(?:: (.*))? -->$/.exec(line)
    if (comment?.[1] === 'given') given = comment[2]!.split(';').map(name => name.trim())
    if (comment?.[1] === 'run') isRun = true
    if (comment?.[1] === 'members of') {
      tables.push({ page, of: comment[2]!, rows: [] })
      isTable = true
    } else if (line.startsWith('|')) {
      if (isTable) tables.at(-1)!.rows.push(line.slice(1, -1).split(/(?<!\\)\|/).map(cell => cell.trim()))
    } else if (line !== '') {
      isTable = false
    }
    const heading = /^#{1,6} (.+)$/.exec(line)
    if (heading !== null) anchors.add(anchorOf(heading[1]!, anchors))
    for (const [, target] of line.replaceAll(/`[^`]*`/g, '').matchAll(/\]\(([^()\s]+)\)/g)) links.push({ page, line: index + 1, target: target! })
  })
  // Without their heads, and the lines below those.
  return { path: page, text, blocks, links, anchors, tables: tables.map(table => ({ ...table, rows: table.rows.slice(2) })) }
}

/** As GitHub makes it of a heading. */
function anchorOf (heading: string, taken: ReadonlySet<string>): string {
  const text = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase()
  const slug = text.replaceAll(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(' ', '-')
  let anchor = slug
  for (let count = 1; taken.has(anchor); count++) anchor = `${slug}-${count}`
  return anchor
}

/** The names that the first cell of a row gives, without what is passed to them. */
export const namesIn = (cell: string): string[] => [...cell.matchAll(/`(?:await )?(\w+(?::\w+)?)[^`]*`/g)].map(([, name]) => name!)
