import {
  createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, randomBytes, timingSafeEqual
} from 'node:crypto'

/** The keys derived from one secret. `id` tells which of several secrets made a message, and nothing about it. */
interface Key { readonly id: string, readonly sealing: Buffer, readonly signing: Buffer }

export function makeKey (secret: Buffer): Key {
  const derive = (use: string) => Buffer.from(hkdfSync('sha256', secret, '', `fastify-taskqueue ${use}`, 32))
  return {
    id: createHash('sha256').update(derive('key id')).digest('base64url').slice(0, 8),
    sealing: derive('aes-256-gcm'),
    signing: derive('hmac-sha256')
  }
}

/** Returns `s1.<key id>.<base64url of nonce, ciphertext, tag>`. */
export function seal (key: Key, plain: Buffer, context: Buffer): string {
  const nonce = randomBytes(12)
  const cipher = createCipheriv('aes-256-gcm', key.sealing, nonce).setAAD(context)
  const sealed = Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
  return `s1.${key.id}.${sealed.toString('base64url')}`
}

/** Returns `m1.<key id>.<base64url of the signature>.<plain>`. */
export function sign (key: Key, plain: Buffer, context: Buffer): string {
  return `m1.${key.id}.${signatureOf(key, plain, context).toString('base64url')}.${plain}`
}

function signatureOf (key: Key, plain: Buffer, context: Buffer): Buffer {
  // The line break separates the two unambiguously: the context is JSON without any line break.
  return createHmac('sha256', key.signing).update(context).update('\n').update(plain).digest()
}

/**
 * Undoes `seal` and `sign`; throws if neither has made the message with one of these keys and this context.
 * It takes both whatever `encrypt` says, since tasks may be waiting while that option is changed.
 */
export function open (keys: readonly Key[], message: string, context: Buffer): string {
  const [, version, keyId, rest] = /^([sm]1)\.([\w-]{8})\.(.*)$/s.exec(message) ?? []
  if (rest === undefined) throw new Error('it is neither sealed nor signed')
  const key = keys.find(({ id }) => id === keyId)
  if (key === undefined) throw new Error('it was made with none of the secrets')
  return version === 's1' ? unseal(key, rest, context) : verify(key, rest, context)
}

function unseal (key: Key, text: string, context: Buffer): string {
  const sealed = Buffer.from(text, 'base64url')
  // The decoder skips characters that it does not know.
  if (sealed.toString('base64url') !== text) throw new Error('its seal is broken')
  try {
    const decipher = createDecipheriv('aes-256-gcm', key.sealing, sealed.subarray(0, 12), { authTagLength: 16 })
      .setAAD(context).setAuthTag(sealed.subarray(-16))
    return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]).toString()
  } catch {
    throw new Error('its seal is broken')
  }
}

function verify (key: Key, text: string, context: Buffer): string {
  const [, signature = '', plain = ''] = /^([\w-]*)\.(.*)$/s.exec(text) ?? []
  const given = Buffer.from(signature, 'base64url')
  const expected = signatureOf(key, Buffer.from(plain), context)
  // The decoder skips characters that it does not know.
  const isExact = given.length === expected.length && given.toString('base64url') === signature
  if (!isExact || !timingSafeEqual(given, expected)) throw new Error('its signature is wrong')
  return plain
}
