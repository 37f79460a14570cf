// terraform/ itself: formatted, valid, and `terraform test` of what must be true of the platform.
import { execFile } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ROOT } from '../lib/site.ts'
import { type Rehearsal, startRehearsal } from '../rehearsal/site.ts'
import { installTools } from '../rehearsal/tools.ts'

type Context = { rehearsal: Rehearsal; directory: string; program: string }

const test = suite<Context>('terraform/')
const execute = promisify(execFile)

test.before(async (context) => {
  const tools = await installTools(console.log)
  context.program = tools.terraform
  context.rehearsal = await startRehearsal({ directory: mkdtempSync(join(tmpdir(), 'lunarfront-test-')), tools })
  context.directory = join(context.rehearsal.directory, 'terraform')
  cpSync(join(ROOT, 'terraform'), context.directory, {
    recursive: true,
    filter: (path) => !path.includes('.terraform'),
  })
  writeFileSync(join(context.directory, 'backend_override.tf'), 'terraform {\n  backend "local" {}\n}\n')
  await terraform(context, 'init', '-input=false')
})
test.after(({ rehearsal }) => rehearsal.down())

const terraform = ({ rehearsal, directory, program }: Context, ...args: string[]) =>
  execute(program, args, {
    cwd: directory,
    env: { ...rehearsal.env, TF_DATA_DIR: join(directory, '.terraform') },
  }).then(
    ({ stdout }) => ({ code: 0, stdout }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout: stdout + stderr }),
  )

test('is formatted', async (context) => {
  const { code, stdout } = await terraform(context, 'fmt', '-check', '-recursive', join(ROOT, 'terraform'))
  assert.is(code, 0, stdout)
})

test('is valid', async (context) => {
  const { code, stdout } = await terraform(context, 'validate', '-no-color')
  assert.is(code, 0, stdout)
})

test('passes its own tests', async (context) => {
  const { code, stdout } = await terraform(context, 'test', '-no-color')
  assert.is(code, 0, stdout)
  assert.match(stdout, /Success! 14 passed, 0 failed/)
})

for (const [what, file, from, to] of [
  ['an open port', 'gitea.tf', '"443"  =', '"5432" = ["0.0.0.0/0"]\n      "443"  ='],
  ['a proxied record', 'dns.tf', /proxied {2}= false/g, 'proxied  = true'],
  ['a highly available control plane', 'cluster.tf', 'ha = false', 'ha = true'],
  [
    'a public database',
    'databases.tf',
    'for_each = local.platform_sources',
    'for_each = merge(local.platform_sources, { ip_addr = "0.0.0.0/0" })',
  ],
  [
    'a bucket without versions',
    'spaces.tf',
    'enabled = true\n  }\n\n  lifecycle_rule',
    'enabled = false\n  }\n\n  lifecycle_rule',
  ],
] as const)
  test(`its tests fail for ${what}`, async (context) => {
    const { readFileSync } = await import('node:fs')
    const path = join(context.directory, file)
    const text = readFileSync(path, 'utf8')
    const broken = typeof from === 'string' ? text.replace(from, to) : text.replaceAll(from, to)
    assert.is.not(broken, text)
    writeFileSync(path, broken)
    try {
      const { code, stdout } = await terraform(context, 'test', '-no-color')
      assert.is(code, 1, stdout)
      assert.match(stdout, /[1-9]\d* failed/)
    } finally {
      writeFileSync(path, text)
    }
  })

test.after(({ directory }) => rmSync(directory, { recursive: true, force: true }))
test.run()
