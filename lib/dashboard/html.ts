/** HTML that is safe to put into HTML: made by the tag `html` alone. */
export class Html {
  readonly #text: string

  /** @internal */
  constructor (text: string) { this.#text = text }

  toString (): string { return this.#text }
}

/** The contents of a template: text is escaped, lists are put together, and nothing is shown of what is missing. */
export type Content = Html | string | number | undefined | null | false | readonly Content[]

/**
 * Makes HTML of a template. Its contents are text, in elements as well as in quoted attributes, unless they are HTML
 * that this tag has made. It must not stand in a script, a style, a comment, or an attribute without quotes.
 */
export function html (parts: TemplateStringsArray, ...contents: readonly Content[]): Html {
  return new Html(parts.reduce((text, part, index) => text + safe(contents[index - 1]) + part))
}

function safe (content: Content): string {
  if (content instanceof Html) return String(content)
  if (Array.isArray(content)) return content.map(safe).join('')
  if (content === undefined || content === null || content === false) return ''
  return escape(String(content))
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;'
}

/**
 * Characters that would change the direction of the text around them, or that no HTML can have. An operator has to see
 * that they are there.
 */
// eslint-disable-next-line no-control-regex
const INVISIBLE = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]|\p{Surrogate}/gu

function escape (text: string): string {
  return text.replace(/[&<>"']/g, character => ENTITIES[character]!)
    .replace(INVISIBLE, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
