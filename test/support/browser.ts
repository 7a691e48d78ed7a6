import { spawnSync } from 'node:child_process'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import type { Test } from 'tap'

/** A page of a browser, and all that went wrong on it: errors, refused scripts and styles, dialogs. */
export interface OpenPage { readonly page: Page, readonly wrong: string[] }

/** Starts the Chromium that `scripts/setup` has installed; the test ends it. */
export async function startBrowser (t: Pick<Test, 'teardown'>): Promise<(options?: BrowserContextOptions) => Promise<OpenPage>> {
  const browser: Browser = await chromium.launch({ executablePath: pathOfChromium(), args: ['--no-sandbox'] })
  t.teardown(() => browser.close())
  return async options => {
    const context = await browser.newContext(options)
    const page = await context.newPage()
    const wrong: string[] = []
    page.on('pageerror', error => { wrong.push(`error: ${error.message}`) })
    page.on('console', message => { if (message.type() === 'error' || message.type() === 'warning') wrong.push(`console: ${message.text()}`) })
    page.on('dialog', dialog => {
      wrong.push(`dialog: ${dialog.message()}`)
      dialog.dismiss().catch(() => {})
    })
    return { page, wrong }
  }
}

function pathOfChromium (): string {
  const { CHROMIUM } = process.env
  if (CHROMIUM !== undefined) return CHROMIUM
  const { stdout } = spawnSync('sh', ['-c', 'command -v chromium || command -v chromium-browser || command -v google-chrome'], { encoding: 'utf8' })
  if (stdout.trim() === '') throw new Error('there is no chromium: see scripts/setup')
  return stdout.trim()
}
