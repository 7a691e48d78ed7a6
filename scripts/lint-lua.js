// Checks the scripts of Redis, as they are when Redis gets them, with luacheck.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { scripts } from '../build/lib/store/redis/scripts.js'

const dir = mkdtempSync(join(tmpdir(), 'lua-'))
try {
  for (const [name, { body }] of Object.entries(scripts)) writeFileSync(join(dir, `${name}.lua`), body)
  // 211, 231: a script has functions and variables of the fragments that it does not use. 631: ESLint checks lines.
  const options = [
    '--std', 'lua51', '--read-globals', 'redis', 'cmsgpack', 'cjson', '--globals', 'KEYS', 'ARGV', '--ignore', '211', '231', '631', '--quiet'
  ]
  execFileSync('luacheck', [...options, dir], { stdio: 'inherit' })
} finally {
  rmSync(dir, { recursive: true, force: true })
}
