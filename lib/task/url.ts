import { isPlain } from '../check.js'
import { FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_INVALID_URL } from '../errors.js'
import { cut, kindOf, show } from '../show.js'
import type { AddOptions } from './options.js'

/** The longest url of a task. Node's server takes no more as the head of a request, its url included. */
export const MAX_URL_LENGTH = 16 * 1024

/**
 * Returns a url in the form in which it is routed, its query appended. Throws unless it is a path of this app. A path
 * that a proxy, a router or a check by prefix could take for another one (`//host`, `/a/../b`, `/a/%2e%2e/b`, `\`) is
 * refused, not repaired.
 */
export function canonicalUrl (url: unknown, query?: AddOptions['query']): string {
  // The query is not shown, since it may be confidential.
  const shown = () => show(typeof url === 'string' ? url.split('?', 1)[0] : url)
  const refuse = (expected: string) => new FST_TASKQUEUE_INVALID_URL(expected, shown())
  const refuseLong = () => refuse(`at most ${MAX_URL_LENGTH} characters long with its query`)
  if (typeof url !== 'string' || !/^\/(?!\/)/.test(url)) throw refuse("a path of this app, starting with one '/'")
  if (url.length > MAX_URL_LENGTH) throw refuseLong()
  if (query === undefined && PLAIN_PATH.test(url)) return url
  // eslint-disable-next-line no-control-regex
  if (/[\\#\u0000-\u001f\u007f]/.test(url)) throw refuse('free of backslashes, fragments and control characters')
  const path = url.split('?', 1)[0]!
  for (const segment of path.split(/\/|%2f|%5c/i)) {
    if (/^(?:\.|%2e){1,2}$/i.test(segment)) throw refuse("free of '.' and '..' segments")
  }
  try {
    decodeURIComponent(path)
  } catch {
    throw refuse('free of malformed percent-encoding')
  }
  const { pathname, searchParams, search } = new URL(keepSpaces(url), 'http://localhost')
  const extra = queryOf(query, refuseLong)
  const separator = extra === '' ? '' : searchParams.size === 0 ? '?' : '&'
  const canonical = `${pathname}${separator === '?' ? '' : search}${separator}${extra}`
  if (canonical.length > MAX_URL_LENGTH) throw refuseLong()
  return canonical
}

/** Encodes the spaces at the end of a url, which the parser of URLs would cut off. */
function keepSpaces (url: string): string {
  let end = url.length
  while (url[end - 1] === ' ') end--
  return url.slice(0, end) + '%20'.repeat(url.length - end)
}

/** Encodes the query to append to a url. Throws early if it is too long even before it is encoded. */
function queryOf (query: AddOptions['query'], refuseLong: () => Error): string {
  if (query === undefined) return ''
  if (!isPlain(query)) throw new FST_TASKQUEUE_INVALID_OPTION('query', 'an object', kindOf(query))
  const encoded = new URLSearchParams()
  let length = 0
  for (const [name, values] of Object.entries(query)) {
    for (const value of Array.isArray(values) ? values : [values]) {
      if (value === undefined) continue
      if (!['string', 'number', 'boolean'].includes(typeof value)) {
        const expected = 'a string, number or boolean, or an array of these'
        throw new FST_TASKQUEUE_INVALID_OPTION(`query.${cut(name)}`, expected, kindOf(value))
      }
      const text = String(value)
      length += name.length + text.length + 2
      if (length > MAX_URL_LENGTH) throw refuseLong()
      encoded.append(name, text)
    }
  }
  return String(encoded)
}

/** Matches paths that are in canonical form already, as most are. */
const PLAIN_PATH = /^(?:\/[\w~-][\w.~-]*)+\/?$/
