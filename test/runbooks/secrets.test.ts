// No secret in any argument, output, log, journal or Git object: the secrets are known, and everything is searched.
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { basename, delimiter, dirname, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { writeWhole } from '../../lib/files.ts'
import { installTools } from '../../rehearsal/tools.ts'
import { content, keys, put } from './bucket.ts'
import { clearFaults, digitalocean, git, type Operator, plant, run, startOperator } from './operator.ts'
import { assertNowhere, recordArguments, watchArguments } from './secrets.ts'

const test = suite<{ operator: Operator }>('secrets')
test.before(async (context) => {
  context.operator = await startOperator()
})
test.after(({ operator }) => operator.down())

/** @returns every secret there is by now, by what it is */
async function secretsOf(operator: Operator): Promise<Record<string, string>> {
  const { cloud } = operator
  const { databases } = (await digitalocean(operator, 'GET', '/v2/databases')) as {
    databases: { name: string; users?: { name: string; password: string }[]; connection: { password: string } }[]
  }
  const customers = readdirSync(join(operator.kept, 'secrets')).flatMap((file) =>
    Object.entries(JSON.parse(readFileSync(join(operator.kept, 'secrets', file), 'utf8')) as Record<string, string>),
  )
  return {
    'DigitalOcean token': cloud.digitalocean.token,
    'Cloudflare token': cloud.cloudflare.token,
    'Spaces secret key': cloud.spaces.secret_access_key,
    ...Object.fromEntries(databases.map(({ name, connection }) => [`password of ${name}`, connection.password])),
    ...Object.fromEntries(
      databases.flatMap(({ name, users = [] }) =>
        users.filter(({ password }) => password).map((user) => [`${name} ${user.name}`, user.password]),
      ),
    ),
    ...Object.fromEntries(customers.map(([name, value], index) => [`${name} ${index}`, value])),
  }
}

/** Every one of these is started, and given something. */
const PROGRAMS = ['terraform', 'git', 'pg_dump', 'pg_restore', 'zstd', 'age']

test('none is in an argument, an output, a log, the journal, or Git', async ({ operator: person }) => {
  const { operator, recorded } = recordArguments(person, PROGRAMS)
  const argv = watchArguments()
  const outputs: string[] = []
  const keep = async (runbook: string, ...args: string[]) => {
    const { stdout, stderr } = await run(operator, runbook, ...args)
    outputs.push(stdout, stderr)
  }
  await keep('bootstrap', '--plan', '--verbose')
  await keep('bootstrap', '--yes', '--verbose')
  await keep('add-customer', 'acme', '--json')
  await keep('add-customer', 'foo', '--verbose')
  // Failures print most.
  await plant(operator, { api: 'cloudflare', method: 'POST', times: 50 }, { status: 500 })
  await keep('add-customer', 'bar', '--verbose')
  await keep('add-customer', 'bar', '--plan', '--verbose')
  await keep('list-customers', '--verbose')
  await keep('list-customers', '--json')
  await clearFaults(operator)
  // Backups: what is made, what fails, and what comes back.
  await keep('backup', '--verbose')
  await keep('backup', '--again', '--json')
  await keep('backups', '--json', '--verbose')
  await plant(operator, { api: 'spaces', method: 'PUT', path: 'dump' }, { status: 500 })
  await keep('backup', '--again', '--verbose')
  await clearFaults(operator)
  const acme = join(operator.kept, 'secrets', 'acme.json')
  rmSync(acme)
  await keep('restore', 'acme', '--verbose')
  await keep('restore', 'acme', '--swap', '--yes', '--verbose')
  assert.ok(existsSync(acme))
  const [dump = ''] = (await keys(operator, 'database/foo/')).filter((key) => key.endsWith('.age'))
  await keep('drill', '--verbose')
  await put(operator, dump, 'damaged')
  await keep('restore', 'foo', '--verbose')
  await keep('prune', '--verbose')
  argv.stop()
  const [identity = ''] =
    readFileSync(operator.env.LUNARFRONT_AGE_IDENTITY ?? '', 'utf8').match(/^AGE-SECRET.*$/m) ?? []
  assert.match(identity, /^AGE-SECRET-KEY-1/)

  const secrets = { ...(await secretsOf(operator)), 'private key of the backups': identity }
  assert.ok(Object.keys(secrets).length >= 12, Object.keys(secrets).join())
  assertNowhere(secrets, outputs.join('\n'), 'an output')
  for (const given of [...PROGRAMS, 'age --encrypt', 'age --decrypt'])
    assert.ok(
      recorded().some((line) => line.startsWith(given)),
      `no argument of ${given} was seen`,
    )
  assertNowhere(secrets, [...recorded(), ...argv.seen].join('\n'), 'an argument')
  const runs = join(operator.kept, 'runs')
  assert.ok(readdirSync(runs).length >= 6)
  for (const file of readdirSync(runs)) {
    assertNowhere(secrets, readFileSync(join(runs, file), 'utf8'), file)
    assert.is(statSync(join(runs, file)).mode & 0o777, 0o600)
  }
  assertNowhere(secrets, git(operator, 'log', '-p', '--all'), 'Git')
  for (const key of await keys(operator)) assertNowhere(secrets, (await content(operator, key)).toString('latin1'), key)
  assert.equal(
    readdirSync(operator.kept).filter((name) => name.startsWith('scratch-')),
    [],
    'a scratch folder, with its plan, was left',
  )
})

test('a secret that a command prints is masked in the output, the log, the journal and the failure', async ({
  operator,
}) => {
  const { env, cloud, directory, kept } = operator
  const runs = join(kept, 'runs')
  const before = existsSync(runs) ? readdirSync(runs) : []
  // A Terraform that tells everything it was given, and cannot plan.
  const real = (await installTools(console.log)).terraform
  const talkative = join(directory, 'talkative', basename(real))
  writeWhole(
    talkative,
    `#!/bin/sh
tell() {
  env
  echo "the token is $DIGITALOCEAN_TOKEN"
  echo "the token is $(printf %s "$CLOUDFLARE_API_TOKEN" | base64 | tr -d '\\n') in base64"
  echo "the key is {\\"key\\": \\"$AWS_SECRET_ACCESS_KEY\\"}"
}
[ "$1" = version ] || tell >&2
[ "$1" = plan ] || exec '${real}' "$@"
tell
exit 1
`,
    0o700,
  )
  const path = `${dirname(talkative)}${delimiter}${env.PATH}`
  const { code, stdout, stderr } = await run({ env: { ...env, PATH: path } }, 'bootstrap', '--yes', '--verbose')
  assert.is(code, 1, stdout)
  const files = readdirSync(runs).filter((name) => !before.includes(name))
  const [log, journal] = ['.log', '.jsonl'].map((ending) =>
    readFileSync(join(runs, files.find((name) => name.endsWith(ending)) ?? 'none'), 'utf8'),
  ) as [string, string]
  const secrets = {
    'DigitalOcean token': cloud.digitalocean.token,
    'Cloudflare token': cloud.cloudflare.token,
    'Spaces secret key': cloud.spaces.secret_access_key,
  }
  for (const [where, text] of Object.entries({ stdout, stderr, log, journal })) {
    assert.match(text, 'the token is [redacted]', where)
    assert.match(text, 'the token is [redacted] in base64', where)
    assertNowhere(secrets, text, where)
  }
  assert.match(log, 'DIGITALOCEAN_TOKEN=[redacted]')
  assert.match(log, 'SPACES_SECRET_ACCESS_KEY=[redacted]')
})

test.run()
