/** Shows a value in an error: short, on one line, and recognisable by its type. */
export function show (value: unknown): string {
  if (typeof value === 'function') return `function ${value.name}`
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    const name = Object.getPrototypeOf(value)?.constructor?.name
    if (name !== undefined && name !== 'Object') return `a ${name}`
  }
  let text: string
  try {
    text = JSON.stringify(value, conceal) ?? String(value)
  } catch {
    return `an ${typeof value} that has no JSON`
  }
  return text.length > 100 ? `${text.slice(0, 100)}…` : text
}

/** An option in the wrong place may be the one that holds a password. */
function conceal (key: string, value: unknown): unknown {
  if (/password|secret/i.test(key)) return '…'
  return typeof value === 'string' ? value.replace(/(?:\/\/.*|[^\s/]*)@/, '…@') : value
}

/** Says what kind of thing a value is, and nothing of what is in it. */
export function kindOf (value: unknown): string {
  if (typeof value !== 'object' || value === null) return value === null ? 'null' : `a value of type ${typeof value}`
  const name = Object.getPrototypeOf(value)?.constructor?.name
  return name === undefined || name === 'Object' ? 'an object' : `a value of type ${name}`
}
