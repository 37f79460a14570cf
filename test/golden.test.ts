// Golden files: compared whole, and rewritten only on request, never in CI.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { matchGolden } from './golden.ts'

test('golden files are only written where a person can read them', () => {
  const directory = mkdtempSync(join(tmpdir(), 'golden-'))
  const file = join(directory, 'new', 'a.yaml')
  try {
    assert.match(problem(file, 'a\n', {}), /is not there; .*UPDATE_GOLDEN=1/)
    assert.match(problem(file, 'a\n', { UPDATE_GOLDEN: '1', CI: 'true' }), /in CI/)
    assert.not.ok(existsSync(file))
    assert.is(problem(file, 'a\n', { UPDATE_GOLDEN: '1' }), '')
    assert.is(problem(file, 'a\n', { CI: 'true' }), '')
    assert.match(problem(file, 'b\n', {}), /differs; .*UPDATE_GOLDEN=1/)
    assert.match(problem(file, 'b\n', { UPDATE_GOLDEN: '1', CI: 'true' }), /in CI/)
    assert.is(readFileSync(file, 'utf8'), 'a\n')
  } finally {
    rmSync(directory, { recursive: true })
  }
})

function problem(file: string, actual: string, environment: NodeJS.ProcessEnv): string {
  try {
    matchGolden(file, actual, environment)
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

test.run()
