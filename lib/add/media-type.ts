/** Returns the media type that a content type begins with (RFC 9110 §8.3.1), without its parameters. */
export function mediaTypeOf (contentType = ''): string {
  return contentType.trim().split(/[\s;]/, 1)[0]!.toLowerCase()
}

export function isJson (mediaType: string): boolean {
  return mediaType === 'application/json' || mediaType.endsWith('+json')
}
