// Golden files: what a test must produce, whole, read by people when it changes. UPDATE_GOLDEN=1 writes them anew, except
// in CI, where nobody would read them.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, relative } from 'node:path'
import * as assert from 'uvu/assert'
import { ROOT } from '../lib/site.ts'

/**
 * @param file path of the golden file
 * @param actual what was produced
 * @param environment UPDATE_GOLDEN and CI are read of it
 * @throws where the file differs, is not there, or may not be written
 */
export function matchGolden(file: string, actual: string, environment = process.env): void {
  const name = relative(ROOT, file)
  if (environment.UPDATE_GOLDEN === '1') {
    if (environment.CI === 'true') throw new Error(`UPDATE_GOLDEN=1 would rewrite ${name} in CI: unset it`)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, actual)
    console.log(`${name} is written; read it with git diff before it is committed`)
    return
  }
  const rewrite = 'if that is meant: UPDATE_GOLDEN=1 with the same test'
  assert.ok(existsSync(file), `${name} is not there; ${rewrite}`)
  assert.fixture(actual, readFileSync(file, 'utf8'), `${name} differs; ${rewrite}`)
}
