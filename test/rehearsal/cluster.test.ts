// The real cluster behind a Kubernetes cluster of the API: what its pods reach, and what they do not, how they are
// reached, and that nothing of it is left.
import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { CLUSTER_DEBIAN, debianLayer, filesLayer, writeArchive } from '../../rehearsal/cluster/images.ts'
import { PAUSE_IMAGE } from '../../rehearsal/cluster/node.ts'
import { KUBERNETES_VERSION } from '../../rehearsal/cluster/programs.ts'
import { isRunning, type ProcessIdentity, processStarted } from '../../rehearsal/servers/processes.ts'
import { endRehearsal, type Rehearsal, startRehearsal } from '../../rehearsal/site.ts'
import { type ClusterTools, clusterObstacle, installClusterTools } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { allTools, control, createDatabase, digitalocean, postgresVersion, type Subject, until } from './cloud.ts'

const run = promisify(execFile)
const DOMAIN = 'lunarfront.test'

type Context = { directory: string; rehearsal: Rehearsal; subject: Subject; cluster: ClusterTools }
const test = suite<Context>('cluster')

type ClusterBody = { id: string; endpoint: string; status: { state: string; message?: string } }

/** Makes a cluster, and waits until it is no longer being made. */
async function createCluster(subject: Subject): Promise<ClusterBody> {
  const { body } = await digitalocean(subject, 'POST', '/kubernetes/clusters', {
    ...{ name: 'main', region: 'nyc3', version: `${KUBERNETES_VERSION.slice(1)}-do.0`, ha: false },
    node_pools: [{ name: 'workers', size: 's-2vcpu-4gb', count: 1 }],
  })
  for (;;) {
    const { id } = body.kubernetes_cluster
    const now = (await digitalocean(subject, 'GET', `/kubernetes/clusters/${id}`)).body.kubernetes_cluster
    if (now.status.state !== 'provisioning') return now
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function begin(context: Context): Promise<void> {
  context.directory = mkdtempSync(join(tmpdir(), 'lunarfront-test-'))
  const tools = await allTools()
  const { directory, cluster } = context
  context.rehearsal = await startRehearsal({ directory, tools, cluster })
  const { cloud } = context.rehearsal
  context.subject = { directory, tools, cloud: { ...cloud, stop: async () => {} } }
}

test.before(async (context) => {
  context.cluster = await installClusterTools(console.log)
  await begin(context)
  const { subject, directory } = context
  const wanted = [
    createCluster(subject),
    createDatabase(subject, { name: 'shared', engine: 'pg', version: await postgresVersion(subject) }),
    createDatabase(subject, { name: 'cache', engine: 'valkey', version: '8' }),
  ] as const
  const [{ id, status }] = await Promise.all(wanted)
  assert.equal(status, { state: 'running' })
  const { cloud } = subject
  const answer = await fetch(`${cloud.digitalocean.url}/v2/kubernetes/clusters/${id}/kubeconfig`, {
    headers: { authorization: `Bearer ${cloud.digitalocean.token}` },
  })
  writeFileSync(join(directory, 'kubeconfig'), await answer.text(), { mode: 0o600 })
})

test.after(async ({ directory }) => {
  if (directory) await endRehearsal(directory)
})

/** @returns what kubectl prints */
async function kubectl({ cluster, directory }: Context, ...args: string[]): Promise<string> {
  const env = { ...process.env, KUBECONFIG: join(directory, 'kubeconfig') }
  return (await run(join(cluster.programs, 'kubectl'), args, { env })).stdout.trim()
}

async function apply(context: Context, ...objects: object[]): Promise<void> {
  const file = join(context.directory, 'objects.json')
  writeFileSync(file, JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }))
  await kubectl(context, 'apply', '-f', file)
}

const pod = (name: string, command: string[], image = PAUSE_IMAGE) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, labels: { app: name } },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'main', image, imagePullPolicy: 'Never', ...(command.length > 0 ? { command } : {}) }],
  },
})

/** A server that answers PONG. */
const SERVER = ['redis-server', '--port', '8080', '--protected-mode', 'no']

const service = (name: string, rest: object) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name },
  spec: { selector: { app: name }, ports: [{ port: 80, targetPort: 8080 }], ...rest },
})

const ready = (context: Context, ...names: string[]) =>
  kubectl(context, 'wait', '--for=condition=Ready', '--timeout=60s', ...names.map((name) => `pod/${name}`))

const inPod = (context: Context, name: string, ...command: string[]) => kubectl(context, 'exec', name, '--', ...command)

const ping = (context: Context, from: string, host: string) =>
  inPod(context, from, 'timeout', '5', 'redis-cli', '-h', host, '-p', '80', 'ping')

/** @returns what the server behind the address answers to a ping; undefined when nobody listens there */
const pong = (host: string, port: number): Promise<string | undefined> =>
  new Promise((resolve) => {
    const socket = connect({ host, port }, () => socket.write('PING\r\n'))
    socket.once('data', (data) => resolve(data.toString().trim())).once('data', () => socket.destroy())
    socket.once('error', () => resolve(undefined)).once('close', () => resolve(undefined))
  })

test('the credentials are an administrator’s, at the real API, over TLS that the CA proves', async (context) => {
  const { subject } = context
  const [{ id, endpoint }] = (await digitalocean(subject, 'GET', '/kubernetes/clusters')).body.kubernetes_clusters
  const { body } = await digitalocean(subject, 'GET', `/kubernetes/clusters/${id}/credentials`)
  assert.is(body.server, endpoint)
  assert.match(endpoint, /^https:\/\/127\.0\.0\.1:\d+$/)
  const ca = join(context.directory, 'ca.pem')
  writeFileSync(ca, Buffer.from(body.certificate_authority_data, 'base64'))
  const own = [`--server=${body.server}`, `--certificate-authority=${ca}`, '--kubeconfig=/dev/null']
  const version = await run(join(context.cluster.programs, 'kubectl'), [
    ...['version', '--output=json', `--token=${body.token}`, ...own],
  ])
  assert.is(JSON.parse(version.stdout).serverVersion.gitVersion, KUBERNETES_VERSION)
  assert.is(await kubectl(context, 'auth', 'can-i', '*', '*', '--all-namespaces'), 'yes')
  const refused = run(join(context.cluster.programs, 'kubectl'), ['get', 'nodes', '--token=wrong', ...own])
  assert.match(
    await refused.then(
      () => 'accepted',
      (error) => error.stderr,
    ),
    /Unauthorized|must be logged in/,
  )
  const { body: options } = await digitalocean(subject, 'GET', '/kubernetes/options')
  assert.equal(
    options.options.versions.map(({ slug }: { slug: string }) => slug),
    [`${KUBERNETES_VERSION.slice(1)}-do.0`],
  )
})

test('pods run, and reach each other by the name of a service', async (context) => {
  await apply(context, pod('one', SERVER), pod('two', ['sleep', 'infinity']), service('one', {}))
  await ready(context, 'one', 'two')
  // A service knows of a pod a little after the pod is ready.
  await until(
    () => ping(context, 'two', 'one').catch(() => 'nothing'),
    (said) => said === 'PONG',
  )
  assert.is(await ping(context, 'two', 'one.default.svc.cluster.local'), 'PONG')
})

test('pods reach the managed databases by their private names, whose certificates are for those', async (context) => {
  const { body } = await digitalocean(context.subject, 'GET', '/databases')
  const of = (engine: string) => body.databases.find((each: { engine: string }) => each.engine === engine)
  const ca = (await digitalocean(context.subject, 'GET', `/databases/${of('pg').id}/ca`)).body.ca.certificate
  await inPod(context, 'two', 'sh', '-c', `echo ${ca} | base64 -d > /tmp/ca.pem`)
  const { host, port, user, password, database } = of('pg').private_connection
  assert.is(host, `private-shared.db.${DOMAIN}`)
  const where = `host=${host} port=${port} user=${user} dbname=${database} sslmode=verify-full sslrootcert=/tmp/ca.pem`
  const asked = ['env', `PGPASSWORD=${password}`, 'psql', where, '-Atc', "SELECT current_user || ' at home'"]
  assert.is(await inPod(context, 'two', ...asked), 'doadmin at home')
  const cache = of('valkey').private_connection
  assert.is(
    await inPod(
      context,
      'two',
      ...['env', `REDISCLI_AUTH=${cache.password}`, 'redis-cli', '--tls'],
      ...[...['--cacert', '/tmp/ca.pem', '--sni', cache.host, '-h', cache.host, '-p', String(cache.port), 'ping']],
    ),
    'PONG',
  )
})

test('pods reach Spaces, and nothing that is not the cluster’s or the cloud’s', async (context) => {
  const http = 'exec 3<>/dev/tcp/$0/80; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; head -1 <&3'
  assert.match(await inPod(context, 'two', 'bash', '-c', http, `spaces.${DOMAIN}`), /^HTTP\/1\.1 4\d\d/)
  // The kernel says so at once, but not to everybody who asks again within a second: those wait in vain.
  const outside = inPod(context, 'two', 'timeout', '2', 'bash', '-c', 'exec 3<>/dev/tcp/192.0.2.1/443')
  assert.match(
    await outside.then(
      () => 'connected',
      (error) => error.stderr,
    ),
    /No route to host|exit code 124/,
  )
})

test('a network policy is enforced, and another pod is not affected', async (context) => {
  const policy = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'one' },
    spec: {
      podSelector: { matchLabels: { app: 'one' } },
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: { matchLabels: { app: 'three' } } }] }],
    },
  }
  await apply(context, pod('three', ['sleep', 'infinity']), policy)
  await ready(context, 'three')
  const answer = (from: string) => ping(context, from, 'one').catch(() => 'nothing')
  await until(
    () => answer('two'),
    (said) => said === 'nothing',
  )
  await until(
    () => answer('three'),
    (said) => said === 'PONG',
  )
  await kubectl(context, 'delete', 'networkpolicy', 'one')
  await until(
    () => answer('two'),
    (said) => said === 'PONG',
  )
})

test('a service of type LoadBalancer answers on an address of its own, under its name, and goes with it', async (context) => {
  const { subject } = context
  const annotations = { 'service.beta.kubernetes.io/do-loadbalancer-name': 'front' }
  const wanted = service('one', { type: 'LoadBalancer', ports: [{ port: 443, targetPort: 8080 }] })
  const named = { ...wanted, metadata: { name: 'front', annotations } }
  await apply(context, named)
  const address = () =>
    kubectl(context, 'get', 'service/front', '--output=jsonpath={.status.loadBalancer.ingress[*].ip}')
  const ip = await until(address, (told) => told !== '')
  const listed = async () => (await digitalocean(subject, 'GET', '/load_balancers')).body.load_balancers
  const [balancer] = await listed()
  assert.equal([balancer.name, balancer.ip, balancer.status], ['front', ip, 'active'])
  await until(
    () => pong(ip, 443),
    (said) => said === '+PONG',
  )
  assert.is(await pong(ip, 80), undefined)

  await apply(context, { ...named, spec: { ...wanted.spec, ports: [{ port: 80, targetPort: 8080 }] } })
  await until(
    () => pong(ip, 80),
    (said) => said === '+PONG',
  )
  assert.is(await pong(ip, 443), undefined)

  await kubectl(context, 'delete', 'service/front')
  await until(listed, (left) => left.length === 0)
  assert.is(await pong(ip, 80), undefined)
})

test('an image that is handed to the cloud is there for pods', async (context) => {
  const { directory, subject } = context
  const machine = { ...thisMachine(), cache: join(directory, 'cache') }
  const program = join(directory, 'program')
  writeFileSync(program, '#!/bin/sh\necho made by hand\nexec sleep infinity\n')
  const base = await debianLayer(thisMachine(), CLUSTER_DEBIAN, console.log)
  const own = await filesLayer(machine, 'test', [{ path: '/usr/local/bin/program', source: program }])
  const archive = join(directory, 'image.tar')
  const reference = `registry.${DOMAIN}/test:1`
  const image = { reference, layers: [base, own], config: { Entrypoint: ['/usr/local/bin/program'] } }
  await writeArchive(archive, [image], [base])
  const missing = await control(subject, 'POST', '/images', { path: join(directory, 'none.tar') })
  assert.is(missing.status, 500)
  const { status, body } = await control(subject, 'POST', '/images', { path: archive })
  assert.equal([status, body], [201, { path: archive }])
  await apply(context, pod('own', [], reference))
  await ready(context, 'own')
  assert.is(await kubectl(context, 'logs', 'own'), 'made by hand')
})

/** @returns the process and all that it has started, directly or not */
function familyOf(pid: number): ProcessIdentity[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const fields = readFileSync(`/proc/${name}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ')
      parents.set(Number(name), Number(fields[1]))
    } catch {} // it has ended
  }
  const isOf = (member: number): boolean => member === pid || (parents.has(member) && isOf(parents.get(member) ?? 0))
  return [...parents.keys()].filter(isOf).map((member) => ({ pid: member, started: processStarted(member) ?? '' }))
}

const controlGroups = (pid: number) => {
  const root = '/sys/fs/cgroup'
  return ['.', ...readdirSync(root)]
    .map((tree) => join(root, tree))
    .filter((tree) => existsSync(join(tree, 'cgroup.procs')))
    .flatMap((tree) => readdirSync(tree).filter((name) => name.startsWith(`lunarfront-${pid}-`)))
}
const mounts = () => readFileSync('/proc/self/mountinfo', 'utf8')
const networks = () => (existsSync('/run/netns') ? readdirSync('/run/netns') : [])

test('it ends with its object, and a cloud that is killed takes it along; nothing is left of either', async (context) => {
  const { subject, directory } = context
  const { pid } = subject.cloud
  const before = { mounts: mounts(), networks: networks() }
  const family = familyOf(pid)
  assert.ok(family.length > 20, `${family.length} processes`)
  assert.ok(controlGroups(pid).length > 0)
  const [{ id }] = (await digitalocean(subject, 'GET', '/kubernetes/clusters')).body.kubernetes_clusters
  const gone = await digitalocean(subject, 'DELETE', `/kubernetes/clusters/${id}`)
  assert.is(gone.status, 204)
  assert.equal(controlGroups(pid), [])
  assert.ok(familyOf(pid).length < 15)
  assert.equal(readdirSync(join(directory, 'cloud', 'machines')), [])

  const again = await createCluster(subject)
  assert.is(again.status.state, 'running')
  const all = familyOf(pid)
  process.kill(pid, 'SIGKILL')
  await until(
    async () => all.filter(isRunning),
    (left) => left.length === 0,
  )
  await endRehearsal(directory)
  assert.equal(controlGroups(pid), [])
  assert.equal({ mounts: mounts(), networks: networks() }, before)
  assert.not.ok(existsSync(directory))
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
