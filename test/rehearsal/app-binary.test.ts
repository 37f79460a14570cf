// What is built of the reference application, when, and what is left of it.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, utimesSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Failure } from '../../lib/failure.ts'
import { APP, buildApp, installAppModules, withCrash, withMigration } from '../../rehearsal/cluster/app-binary.ts'
import { type Machine, thisMachine } from '../../rehearsal/tools/machine.ts'

const test = suite<{ machine: Machine; folder: string; told: string[] }>('building the application')

test.before.each(async (context) => {
  const modules = dirname(await installAppModules(thisMachine(), () => {}))
  context.machine = { ...thisMachine(), cache: mkdtempSync(join(tmpdir(), 'app-cache-')) }
  context.folder = join(context.machine.cache, 'app')
  context.told = []
  mkdirSync(context.folder)
  symlinkSync(modules, join(context.folder, basename(modules)))
})
test.after.each(({ machine }) => rmSync(machine.cache, { recursive: true }))

const executables = (folder: string) => readdirSync(folder).filter((name) => !name.startsWith('modules-'))

test('once for each version and each change of the sources, and not in the checkout', async ({
  machine,
  folder,
  told,
}) => {
  const before = readdirSync(APP)
  const build = (version: string, files = {}) => buildApp({ version, files }, machine, (line) => told.push(line))
  const first = await build('1.0.0')
  assert.match(told.join('\n'), /^app 1\.0\.0: built in [\d.]+ s$/)
  assert.is(await build('1.0.0'), first)
  assert.is(told.length, 1)
  const others = [
    await build('1.0.1'),
    await build('1.0.0', withCrash(1)),
    await build('1.0.0', withMigration('x', '')),
  ]
  assert.is(new Set([first, ...others]).size, 4)
  assert.equal(
    executables(folder)
      .map((name) => join(folder, name))
      .sort(),
    [first, ...others].sort(),
  )
  assert.equal(readdirSync(APP), before)
})

test('with a cache that is empty, and npm run telling npm that no package may run anything', async ({ machine }) => {
  const fresh = {
    ...machine,
    cache: join(machine.cache, 'fresh'),
    environment: { ...machine.environment, npm_config_ignore_scripts: 'true' },
  }
  assert.ok(existsSync(await buildApp({ version: '1.0.0' }, fresh, () => {})))
})

test('two at once', async ({ machine, folder }) => {
  const [one, other] = await Promise.all([1, 2].map(() => buildApp({ version: '1.0.0' }, machine, () => {})))
  assert.is(one, other)
  assert.is(executables(folder).length, 1)
})

test('an executable goes a day after it was last asked for', async ({ machine }) => {
  const build = (version: string) => buildApp({ version }, machine, () => {})
  const [unused, used] = [await build('1.0.0'), await build('1.0.1')]
  const old = new Date(Date.now() - 25 * 60 * 60 * 1000)
  for (const path of [unused, used]) utimesSync(path, old, old)
  await build('1.0.1')
  await build('1.0.2')
  assert.equal([existsSync(unused), existsSync(used)], [false, true])
})

test('what cannot be built is told, and leaves nothing', async ({ machine, folder }) => {
  const failure = async (version: string, files = {}): Promise<Failure> => {
    try {
      await buildApp({ version, files }, machine, () => {})
    } catch (error) {
      if (error instanceof Failure) return error
      throw error
    }
    throw new Error('it was built')
  }
  assert.match((await failure(`1'`)).message, /^the version "1'"$/)
  const broken = await failure('1.0.0', { 'src/index.ts': `import './none.ts'\n` })
  assert.match(broken.message, /^`npm run build` ended with 1:/)
  assert.match(broken.message, 'Could not resolve: "./none.ts"')
  assert.is(broken.next, `(cd '${APP}' && npm ci && APP_VERSION=1.0.0 npm run build)`)
  assert.equal(executables(folder), [])
})

test.run()
