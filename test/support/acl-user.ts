import { readFileSync } from 'node:fs'
import type { Redis } from 'ioredis'

/** Makes the user of Redis that SECURITY.md recommends, for another prefix if need be, and returns how to be it. */
export async function addAclUser (admin: Redis, prefix = 'taskqueue'): Promise<{ username: string, password: string }> {
  const line = /^ACL SETUSER (.+)$/m.exec(readFileSync('SECURITY.md', 'utf8'))![1]!
  await admin.call('ACL', 'SETUSER', ...line.replaceAll('taskqueue:', `${prefix}:`).split(' '))
  return { username: 'taskqueue', password: 'password' }
}
