// The backup schedule on a real cluster: its CronJobs' own Jobs, in their own pods, with what they are given and no more.
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { everyManifestIsTrue, folders, keys, manifest, opened, put, verified } from './bucket.ts'
import { startFullOperator } from './full.ts'
import { must, type Operator } from './operator.ts'
import { assertNowhere } from './secrets.ts'

const CUSTOMERS = ['acme', 'beta']
/** What somebody has added to acme's Secret by hand, in base64. */
const OTHERS = {
  SMTP_PASSWORD: Buffer.from('correct horse battery').toString('base64'),
  'store.p12': Buffer.from([0, 255, 128, 10]).toString('base64'),
}
const SOURCES = [...CUSTOMERS.flatMap((name) => [`database/${name}`, `secrets/${name}`]), 'terraform/state']

const test = suite<{ operator: Operator }>('the backup schedule')

test.before(async (context) => {
  const operator = await startFullOperator()
  context.operator = operator
  for (const customer of CUSTOMERS) await must(operator, 'add-customer', customer, '--yes')
  const patch = JSON.stringify({ data: OTHERS })
  await kubectl(operator, ['patch', 'secret', 'customer-acme', '-n', 'customer-acme', `--patch=${patch}`])
})
test.after(async ({ operator }) => operator?.down())

/** @param input given to kubectl as an object. @returns what it prints; rejects where it does not exit 0 */
async function kubectl({ env, kept }: Operator, args: string[], input?: object): Promise<string> {
  const options = { env, maxBuffer: 64 * 2 ** 20 }
  const child = promisify(execFile)('kubectl', [`--kubeconfig=${join(kept, 'kubeconfig')}`, ...args], options)
  child.child.stdin?.end(input ? JSON.stringify(input) : '')
  return (await child).stdout
}
const inBackups = (operator: Operator, args: string[], input?: object) =>
  kubectl(operator, ['--namespace=backups', ...args], input)

// biome-ignore lint/suspicious/noExplicitAny: whatever a manifest may hold
type Any = any

const object = async (operator: Operator, ...args: string[]): Promise<Any> =>
  JSON.parse(await inBackups(operator, ['get', ...args, '-o', 'json']))

/** @returns the object as one of another name, changed, without what only a server sets */
const copyOf = ({ apiVersion, kind, metadata, spec }: Any, name: string, change: (spec: Any) => void) => {
  const own = structuredClone(spec)
  change(own)
  return { apiVersion, kind, metadata: { name, namespace: metadata.namespace }, spec: own }
}

/** Starts a Job of a CronJob, as a person does who does not want to wait for the night. */
const startJob = (operator: Operator, cronjob: string, job: string) =>
  inBackups(operator, ['create', 'job', `--from=cronjob/${cronjob}`, job])

/** Starts a Job that is a CronJob's but for a change. */
const startChanged = async (operator: Operator, cronjob: string, job: string, change: (spec: Any) => void) => {
  const { metadata, spec } = await object(operator, 'cronjob', cronjob)
  const base = { apiVersion: 'batch/v1', kind: 'Job', metadata, spec: spec.jobTemplate.spec }
  await inBackups(operator, ['create', '-f', '-'], copyOf(base, job, change))
}

const ends = (operator: Operator, job: string, condition: 'complete' | 'failed' = 'complete') =>
  inBackups(operator, ['wait', `--for=condition=${condition}`, '--timeout=180s', `job/${job}`])

const logsOf = (operator: Operator, job: string) =>
  inBackups(operator, ['logs', '--selector', `job-name=${job}`, '--tail=-1', '--prefix'])

/** @returns the log of a Job that has completed; throws with it where the Job has not */
async function completed(operator: Operator, job: string): Promise<string> {
  await ends(operator, job).catch(async (error: Error) => {
    throw new Error(`${error.message}\n${await logsOf(operator, job)}`)
  })
  return logsOf(operator, job)
}

test('backup: two pods make a backup of every source, each source in one of them', async ({ operator }) => {
  assert.equal(await verified(operator), {})
  await startJob(operator, 'backup', 'backup-first')
  const log = await completed(operator, 'backup-first')
  const { status } = await object(operator, 'job', 'backup-first')
  assert.is(status.completedIndexes, '0,1')
  assert.equal(await verified(operator), Object.fromEntries(SOURCES.map((source) => [source, 1])), log)
  await everyManifestIsTrue(operator, log)
})

test('what it backs up of a customer’s secrets is what the cluster has', async ({ operator }) => {
  for (const customer of CUSTOMERS) {
    const [folder = ''] = await folders(operator, `secrets/${customer}`)
    const { key } = await manifest(operator, folder)
    const name = `customer-${customer}`
    const { data } = JSON.parse(await kubectl(operator, ['get', 'secret', name, '-n', name, '-o', 'json']))
    const { jwt_secret, others } = JSON.parse((await opened(operator, key)).toString())
    assert.is(jwt_secret, Buffer.from(data.JWT_SECRET, 'base64').toString())
    assert.equal(others, customer === 'acme' ? OTHERS : undefined)
  }
})

test('the nightly backup and a person’s at the same time: both succeed', async ({ operator }) => {
  await startChanged(operator, 'backup', 'backup-again', ({ template }) => {
    template.spec.containers[0].args[0] += ' --again'
  })
  await must(operator, 'backup', '--again')
  const log = await completed(operator, 'backup-again')
  // Gitea is a person's and its droplet's: no part of the cluster's backup reaches it.
  const thrice = Object.fromEntries(SOURCES.map((source) => [source, 3]))
  assert.equal(await verified(operator), { ...thrice, 'gitea/gitea': 1 }, log)
  await everyManifestIsTrue(operator, log)
})

test('prune: removes what was never finished, and tells how old everything is', async ({ operator }) => {
  const unfinished = 'database/acme/2026-01-01T00-00-00.000Z/dump.zst.age'
  await put(operator, unfinished, 'the beginning of a backup')
  await startJob(operator, 'prune', 'prune-first')
  const log = await completed(operator, 'prune-first')
  assert.not.ok((await keys(operator)).includes(unfinished), log)
  for (const source of SOURCES) assert.match(log, new RegExp(`${source} +\\d min old`))
})

test('drill: restores every customer’s newest backup, and Gitea’s, and the evidence is there', async ({ operator }) => {
  await startJob(operator, 'drill', 'drill-first')
  await completed(operator, 'drill-first')
  const { sources } = JSON.parse(await must(operator, 'backups', '--json')) as {
    sources: { source: string; drilled: string | null }[]
  }
  const drilled = sources.flatMap(({ source, drilled }) => (drilled ? [source] : []))
  assert.equal(drilled.sort(), ['database/acme', 'database/beta', 'gitea/gitea'])
})

test('a backup that fails is a failed Job, and its pod says why', async ({ operator }) => {
  await startChanged(operator, 'backup', 'backup-refused', (spec) => {
    spec.backoffLimitPerIndex = 0
    const { env } = spec.template.spec.containers[0]
    env.splice(
      env.findIndex(({ name }: Any) => name === 'SPACES_SECRET_ACCESS_KEY'),
      1,
      {
        name: 'SPACES_SECRET_ACCESS_KEY',
        value: 'of-somebody-else-altogether',
      },
    )
  })
  await ends(operator, 'backup-refused', 'failed')
  assert.match(await logsOf(operator, 'backup-refused'), /Spaces refuses the key/)
  const { items } = await object(operator, 'pods', '--selector=job-name=backup-refused')
  for (const { status } of items)
    assert.match(status.containerStatuses[0].state.terminated.message, /Spaces refuses the key/)
})

test('a pod reaches no port that it has no business with', async ({ operator }) => {
  const { data } = JSON.parse(
    await kubectl(operator, ['get', 'secret', 'customer-acme', '-n', 'customer-acme', '-o', 'json']),
  )
  const { hostname, port } = new URL(Buffer.from(data.REDIS_URL, 'base64').toString())
  // Customers' pods reach Valkey there, so that it is this policy that closes it.
  const script = `
    const knock = ({ host, port }) => new Promise((done) => {
      const socket = require('node:net').connect({ host, port, timeout: 4000 })
      const told = (how) => { socket.destroy(); done(how) }
      socket.on('connect', () => told('is open')).on('timeout', () => told('is closed')).on('error', (e) => told(e.code))
    })
    const look = async () => {
      console.log('postgres', await knock(JSON.parse(require('node:fs').readFileSync('/etc/lunarfront/postgres.json'))))
      let valkey
      for (const end = Date.now() + 30000; (valkey ??= 'is open') === 'is open' && Date.now() < end; )
        valkey = await knock({ host: '${hostname}', port: ${port} })
      console.log('valkey', valkey)
    }
    look()`
  // What enforces the policy hears of a new pod a moment after the pod has begun.
  await startChanged(operator, 'prune', 'knock', ({ template }) => {
    Object.assign(template.spec.containers[0], { command: ['node', '-e'], args: [script] })
  })
  const log = await completed(operator, 'knock')
  assert.match(log, /postgres is open/)
  assert.match(log, /valkey (is closed|ECONNREFUSED)$/m)
})

test('the pods’ account may read the customers’ Secrets, one each, and do nothing else', async ({ operator }) => {
  const account = '--as=system:serviceaccount:backups:backups'
  const can = async (...what: string[]) =>
    (await kubectl(operator, ['auth', 'can-i', account, ...what]).catch(({ stdout }) => String(stdout))).trim()
  for (const customer of CUSTOMERS)
    assert.is(await can('get', `secret/customer-${customer}`, `--namespace=customer-${customer}`), 'yes')
  for (const what of [
    ['list', 'secrets', '--namespace=customer-acme'],
    ['watch', 'secrets', '--namespace=customer-acme'],
    ['get', 'secret/other', '--namespace=customer-acme'],
    ['update', 'secret/customer-acme', '--namespace=customer-acme'],
    ['get', 'pods', '--namespace=customer-acme'],
    ['create', 'pods', '--namespace=customer-acme'],
    ['get', 'secret/backups', '--namespace=backups'],
    ['get', 'secret/drill', '--namespace=backups'],
    ['get', 'secret/repository', '--namespace=argocd'],
    ['create', '*', '--all-namespaces'],
    ['delete', '*', '--all-namespaces'],
  ])
    assert.is(await can(...what), 'no', what.join(' '))
})

test('no pod has a provider’s token; the private key and the account’s token go to one each', async ({ operator }) => {
  const { DIGITALOCEAN_TOKEN = '', CLOUDFLARE_API_TOKEN = '' } = operator.env
  const valkey = /valkey/.exec(JSON.stringify(await object(operator, 'cronjobs')))
  assert.is(valkey, null)
  const { items } = await object(operator, 'secrets')
  const given = items
    .flatMap(({ data }: Any) => Object.values(data))
    .map((it: Any) => Buffer.from(it, 'base64').toString())
  assert.ok(given.some((text: string) => text.includes('"user":"doadmin"')))
  assertNowhere({ DIGITALOCEAN_TOKEN, CLOUDFLARE_API_TOKEN }, given.join('\n'), 'a Secret')
  const jobs = await object(operator, 'cronjobs')
  for (const { metadata, spec } of jobs.items) {
    const pod = spec.jobTemplate.spec.template.spec
    const volumes = pod.volumes.map(({ name }: Any) => name)
    assert.is(volumes.includes('drill'), metadata.name === 'drill', metadata.name)
    assert.is(pod.automountServiceAccountToken, metadata.name === 'backup', metadata.name)
  }
})

test('nothing of what the pods are given is in a log', async ({ operator }) => {
  const all = JSON.parse(await kubectl(operator, ['get', 'secrets', '--all-namespaces', '-o', 'json'])) as Any
  const secrets: Record<string, string> = {}
  for (const { metadata, data = {} } of all.items)
    for (const [key, value] of Object.entries(data)) {
      if (!/^(backups|drill|customer-\w+)$/.test(metadata.name)) continue
      if (!/^(SPACES_SECRET_ACCESS_KEY|JWT_SECRET|postgres\.json|DATABASE_URL|ssh-key|key)$/.test(key)) continue
      const text = Buffer.from(String(value), 'base64').toString()
      const parts = {
        'postgres.json': () => JSON.parse(text).password,
        DATABASE_URL: () => decodeURIComponent(new URL(text).password),
        'ssh-key': () => text.split('\n')[2],
        key: () => /AGE-SECRET-KEY-\S+/.exec(text)?.[0],
      }
      secrets[`${key} of ${metadata.name}`] = parts[key as keyof typeof parts]?.() ?? text
    }
  assert.is(Object.keys(secrets).length, 4 + 2 * CUSTOMERS.length, Object.keys(secrets).join())
  const { items } = await object(operator, 'pods')
  assert.ok(items.length >= 8)
  for (const { metadata } of items)
    assertNowhere(secrets, await inBackups(operator, ['logs', metadata.name]), metadata.name)
  assertNowhere(secrets, JSON.stringify([items, await object(operator, 'jobs,cronjobs,events')]), 'an object')
})

test('the cluster starts it by itself when its time has come', async ({ operator }) => {
  const copy = copyOf(await object(operator, 'cronjob', 'prune'), 'minutely', (spec) => {
    spec.schedule = '* * * * *'
  })
  await inBackups(operator, ['create', '-f', '-'], copy)
  await inBackups(operator, [
    'wait',
    'cronjob/minutely',
    '--for=jsonpath={.status.lastSuccessfulTime}',
    '--timeout=120s',
  ])
  await inBackups(operator, ['delete', 'cronjob', 'minutely'])
})

test('bootstrap finds nothing to do, and gives the pods anew what they have lost', async ({ operator }) => {
  assert.match(await must(operator, 'bootstrap', '--yes'), / ok, 0 changed/)
  await inBackups(operator, ['delete', 'secret', 'backups'])
  await inBackups(operator, ['delete', 'cronjob', 'backup'])
  assert.match(await must(operator, 'bootstrap', '--yes'), /changed +the backup schedule has its credentials/)
  await inBackups(operator, ['wait', 'cronjob/backup', '--for=create', '--timeout=120s'])
  assert.match(readFileSync(operator.siteFile, 'utf8'), 'drill_key')
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
