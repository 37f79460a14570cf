// No secret of a cluster, nor of the customers on it, in any argument, output, log, journal, Git object, or in anything on
// the cluster that is no Secret: they are known, and everything is searched.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { content, keys } from './bucket.ts'
import { kubectl, loseCluster, makeFirstRelease, startEmptyFullOperator } from './full.ts'
import { digitalocean, git, type Operator, run } from './operator.ts'
import { assertNowhere, recordArguments, watchArguments } from './secrets.ts'

const test = suite<{ operator: Operator }>('secrets on a cluster')

test.before(async (context) => {
  context.operator = await startEmptyFullOperator()
})
test.after(async ({ operator }) => operator?.down())

type SecretObject = { metadata: { name: string; namespace: string }; data?: Record<string, string> }

/** Certificates and names are in Secrets too; whoever has one of these can do something with it. */
const SECRET_KEYS =
  /^(JWT_SECRET|DATABASE_URL|REDIS_URL|sshPrivateKey|ssh-key|password|auth|server\.secretkey|webhook\.gogs\.secret|tls\.key|admin\.password)$/

/** @returns what is in the cluster's Secrets, by where, and the passwords within addresses on their own as well */
function secretsOnCluster(operator: Operator): Record<string, string> {
  const { items } = JSON.parse(kubectl(operator, 'get', 'secrets', '-A', '-o', 'json')) as { items: SecretObject[] }
  const entries = items.flatMap(({ metadata: { name, namespace }, data = {} }) =>
    Object.entries(data)
      .filter(([key]) => SECRET_KEYS.test(key))
      .flatMap(([key, value]) => {
        const text = Buffer.from(value, 'base64').toString()
        const where = `${key} of ${name} in ${namespace}`
        if (/^\w+:\/\//.test(text)) return [[where, decodeURIComponent(new URL(text).password)]]
        // Of a key its middle: it stands in several lines.
        return [[where, /PRIVATE KEY/.test(text) ? (text.split('\n')[2] ?? '') : text]]
      }),
  )
  return Object.fromEntries(entries.filter(([, secret]) => secret !== ''))
}

/** All that a person who may not read Secrets could see: every other object, every log. */
function* readable(operator: Operator): Generator<[where: string, text: string]> {
  const kinds = kubectl(operator, 'api-resources', '--verbs=list', '-o', 'name').trim().split('\n')
  for (const kind of kinds.filter((name) => name !== 'secrets'))
    yield [kind, kubectl(operator, 'get', kind, '-A', '-o', 'json', '--ignore-not-found')]
  const pods = kubectl(
    operator,
    'get',
    'pods',
    '-A',
    '-o',
    'jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{"\\n"}{end}',
  )
  for (const line of pods.trim().split('\n')) {
    const [namespace = '', name = ''] = line.split(' ')
    yield [
      `the log of ${line}`,
      kubectl(operator, 'logs', '-n', namespace, name, '--all-containers', '--ignore-errors'),
    ]
  }
}

test('none is anywhere else', async ({ operator: person }) => {
  const { operator, recorded } = recordArguments(person, ['kubectl'])
  const argv = watchArguments()
  const outputs: string[] = []
  const keep = async (expected: number, runbook: string, ...args: string[]) => {
    const { code, stdout, stderr } = await run(operator, runbook, ...args)
    outputs.push(stdout, stderr)
    assert.is(code, expected, `${runbook} ${args.join(' ')}:\n${stdout}${stderr}`)
  }
  const secrets: Record<string, string> = {}
  const learn = async () => {
    Object.assign(secrets, secretsOnCluster(operator))
    const token = /token: (\S+)/.exec(readFileSync(join(operator.kept, 'kubeconfig'), 'utf8'))?.[1]
    assert.ok(token)
    secrets[`token of the kubeconfig, ${token.slice(-4)}`] = token
  }
  await keep(0, 'bootstrap', '--yes', '--verbose')
  await makeFirstRelease(operator)
  await keep(0, 'add-customer', 'acme', '--verbose')
  await keep(0, 'add-customer', 'beta', '--json')
  await learn()
  // Failures print most: an image that nobody has made.
  await keep(1, 'add-customer', 'gamma', '--tag', 'nowhere', '--verbose')
  await keep(0, 'add-customer', 'acme', '--new-secrets', '--verbose')
  await keep(0, 'backup', '--verbose')
  await learn()
  for (const [where, text] of readable(operator)) assertNowhere(secrets, text, where)
  await loseCluster(operator)
  await keep(1, 'recover', '--yes', '--verbose') // gamma's image is still nowhere
  await learn()
  await keep(0, 'remove-customer', 'beta', '--yes', '--verbose')
  argv.stop()

  const { databases } = (await digitalocean(operator, 'GET', '/v2/databases')) as {
    databases: { name: string; connection: { password: string } }[]
  }
  for (const { name, connection } of databases) secrets[`administrator of ${name}`] = connection.password
  const customers = ['acme', 'beta', 'gamma'].flatMap((customer) => [
    `JWT_SECRET of customer-${customer} in customer-${customer}`,
    `DATABASE_URL of customer-${customer} in customer-${customer}`,
  ])
  for (const name of [...customers, 'sshPrivateKey of repository in argocd'])
    assert.ok(secrets[name], `${name} is not among: ${Object.keys(secrets).join(', ')}`)

  for (const [where, text] of readable(operator)) assertNowhere(secrets, text, where)
  assertNowhere(secrets, outputs.join('\n'), 'an output')
  assert.ok(recorded().length > 10)
  // Argo CD's own manifest gives its cache the password so, within that pod.
  const { 'auth of argocd-redis in argocd': _, ...others } = secrets
  assertNowhere(others, [...recorded(), ...argv.seen].join('\n'), 'an argument')
  for (const file of readdirSync(join(operator.kept, 'runs')))
    assertNowhere(secrets, readFileSync(join(operator.kept, 'runs', file), 'utf8'), file)
  assertNowhere(secrets, git(operator, 'log', '-p', '--all'), 'Git')
  for (const key of await keys(operator)) assertNowhere(secrets, (await content(operator, key)).toString('latin1'), key)
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
