import type { Key } from './keys.js'

/** The first arguments of a script: their names, and as what the script takes each of them. */
export type Params = Readonly<Record<string, 'number' | 'text'>>

/** The values for the params of a script. An empty text stands for a number that is left out. */
export type Values<P extends Params> = {
  readonly [Name in keyof P]: P[Name] extends 'text' ? string | number : number | ''
}

/** A script, and which keys it takes of each of its queues. */
export interface Script {
  readonly keys: readonly Key[]
  readonly body: string
}

/**
 * Returns Lua that makes a local of each param, and `rest` of the place of the first argument behind them. It comes
 * after all functions that scripts share, so that none of these takes such a local for its own.
 */
export function localsOf (params: Params): string {
  const values = Object.values(params).map((kind, index) => {
    const value = `ARGV[${index + 1}]`
    return kind === 'number' ? `tonumber(${value})` : value
  })
  return `local ${Object.keys(params).join(', ')} = ${values.join(', ')}\nlocal rest = ${values.length + 1}\n`
}

/** Returns the arguments of a script: the values of its params, and then the rest. */
export function encode<P extends Params> (
  params: P, values: Values<P>, rest: ReadonlyArray<string | number> = []
): Array<string | number> {
  return [...Object.keys(params).map(name => values[name]!), ...rest]
}
