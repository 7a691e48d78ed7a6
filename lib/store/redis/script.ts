import type { Key } from './keys.js'

/** The first arguments of a script by their names, and what it takes each of them for. */
export type Params = Readonly<Record<string, 'number' | 'text'>>

/** What a script is passed for its params. An empty text stands for a number that is left out. */
export type Values<P extends Params> = { readonly [Name in keyof P]: P[Name] extends 'text' ? string | number : number | '' }

/** A script, and which keys of each of its queues it is passed. */
export interface Script {
  readonly keys: readonly Key[]
  readonly body: string
}

/** Lua that makes locals of the params, and of the place of the argument behind them: `rest`. */
export function localsOf (params: Params): string {
  const values = Object.values(params).map((kind, index) => kind === 'number' ? `tonumber(ARGV[${index + 1}])` : `ARGV[${index + 1}]`)
  return `local ${Object.keys(params).join(', ')} = ${values.join(', ')}\nlocal rest = ${values.length + 1}\n`
}

/** Returns the arguments of a script: its params, and then others. */
export function encode<P extends Params> (
  params: P, values: Values<P>, rest: ReadonlyArray<string | number> = []
): Array<string | number> {
  return [...Object.keys(params).map(name => values[name]!), ...rest]
}
