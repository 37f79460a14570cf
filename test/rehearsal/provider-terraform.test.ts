// Terraform itself, on terraform/ as it is: with the state in the rehearsed Spaces and the providers' stand-in.
import { execFile, spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Client } from 'pg'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openSpaces } from '../../rehearsal/cloud/spaces/client.ts'
import {
  cloudFor,
  cloudflare,
  control,
  digitalocean,
  fault,
  postgresVersion,
  temporaryDirectory,
  until,
} from './cloud.ts'

const SOURCE = fileURLToPath(new URL('../../terraform', import.meta.url))

const test = suite('terraform')
const subject = cloudFor(test)
const directories: string[] = []
test.after(() => {
  for (const directory of directories) rmSync(directory, { recursive: true, force: true })
})

type Workplace = { directory: string; environment: Record<string, string> }

/** @returns an environment with nothing in it but what Terraform needs, and the cloud's addresses and credentials */
function environment(home: string): Record<string, string> {
  const { cloud, tools } = subject
  const { access_key_id, secret_access_key } = cloud.spaces
  return {
    PATH: [dirname(tools.terraform), '/usr/bin', '/bin'].join(delimiter),
    HOME: home,
    CHECKPOINT_DISABLE: '1',
    TF_IN_AUTOMATION: '1',
    TF_REATTACH_PROVIDERS: JSON.stringify(cloud.reattach),
    DIGITALOCEAN_TOKEN: cloud.digitalocean.token,
    DIGITALOCEAN_API_URL: cloud.digitalocean.url,
    SPACES_ACCESS_KEY_ID: access_key_id,
    SPACES_SECRET_ACCESS_KEY: secret_access_key,
    CLOUDFLARE_API_TOKEN: cloud.cloudflare.token,
    CLOUDFLARE_BASE_URL: cloud.cloudflare.url,
    AWS_ACCESS_KEY_ID: access_key_id,
    AWS_SECRET_ACCESS_KEY: secret_access_key,
  }
}

function emptyWorkplace(): Workplace {
  const directory = temporaryDirectory()
  directories.push(directory)
  const home = join(directory, 'home')
  mkdirSync(home)
  return { directory, environment: environment(home) }
}

type Call = { method: string; path: string; status: number }
type Ended = { code: number; output: string }

/** Runs Terraform there; a failure is for the test to see. */
const terraform = ({ directory, environment }: Workplace, ...args: string[]): Promise<Ended> =>
  new Promise((resolve) => {
    const [command = '', ...rest] = args
    const options = { cwd: directory, env: environment, maxBuffer: 64 * 2 ** 20 }
    execFile(subject.tools.terraform, [command, '-no-color', ...rest], options, (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error ? 1 : 0, output: stdout + stderr })
    })
  })

async function succeed(workplace: Workplace, ...args: string[]): Promise<string> {
  const { code, output } = await terraform(workplace, ...args)
  assert.is(code, 0, `terraform ${args.join(' ')}\n${output}`)
  return output
}

/** A copy of terraform/ with a customer, its variables, and a state bucket in the cloud. */
async function platform(name: string): Promise<Workplace> {
  const workplace = emptyWorkplace()
  const { directory } = workplace
  for (const file of readdirSync(SOURCE)) if (file.endsWith('.tf')) cpSync(join(SOURCE, file), join(directory, file))
  const apps = join(directory, 'apps')
  mkdirSync(join(apps, 'customer-acme'), { recursive: true })
  writeFileSync(join(apps, 'customer-acme', 'values.yaml'), 'customer: acme\nsubdomain: acme\n')
  const buckets = { state: `${name}-state`, files: `${name}-files`, backups: `${name}-backups` }
  const { x = '' } = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })
  const key = Buffer.concat([Buffer.from('\0\0\0\vssh-ed25519\0\0\0 ', 'latin1'), Buffer.from(x, 'base64url')])
  const variables = {
    ...{ name, domain: subject.cloud.cloudflare.domain, region: 'nyc3', buckets, apps_directory: apps },
    cloudflare_zone_id: subject.cloud.cloudflare.zone_id,
    operator_ssh_keys: { ryan: `ssh-ed25519 ${key.toString('base64')} ryan` },
    postgres_version: await postgresVersion(subject),
  }
  writeFileSync(join(directory, 'terraform.tfvars.json'), JSON.stringify(variables))
  const { sdk, client } = await openSpaces(subject.cloud.spaces)
  await client.send(new sdk.CreateBucketCommand({ Bucket: buckets.state }))
  client.destroy()
  await succeed(
    workplace,
    'init',
    '-input=false',
    `-backend-config=bucket=${buckets.state}`,
    `-backend-config=endpoints={s3="${subject.cloud.spaces.url}"}`,
  )
  return workplace
}

/** A workplace with a configuration of its own and its state in a file. */
async function small(name: string, configuration: string): Promise<Workplace> {
  const workplace = emptyWorkplace()
  const main = readFileSync(join(SOURCE, 'main.tf'), 'utf8')
  const providers = /required_providers \{[\s\S]*?\n {2}\}/.exec(main)?.[0]
  writeFileSync(join(workplace.directory, 'main.tf'), `terraform {\n${providers}\n}\n${configuration}`)
  await succeed(workplace, 'init', '-input=false')
  writeFileSync(join(workplace.directory, 'name.auto.tfvars'), `name = "${name}"\n`)
  return workplace
}

const VPC = `
variable "name" { type = string }
resource "digitalocean_vpc" "x" {
  name   = var.name
  region = "nyc3"
}
`

const planned = (workplace: Workplace, ...args: string[]) =>
  terraform(workplace, 'plan', '-input=false', '-detailed-exitcode', ...args)

let lunar: Workplace

test('the platform applies, and a second plan finds nothing', async () => {
  lunar = await platform('lunar')
  await succeed(lunar, 'validate')
  const output = await succeed(lunar, 'apply', '-input=false', '-auto-approve')
  assert.match(output, /Apply complete! Resources: 1 imported, \d+ added, 1 changed, 0 destroyed/)
  const again = await planned(lunar)
  assert.is(again.code, 0, again.output)
})

test('what was applied is really there: the database, its user, the records, the buckets', async () => {
  const outputs = JSON.parse(await succeed(lunar, 'output', '-json'))
  const { host, port, user, password, database } = outputs.gitea_postgres.value
  const ssl = { ca: outputs.postgres.value.ca, servername: host }
  const client = new Client({ host: '127.0.0.1', port, user, password, database, ssl })
  await client.connect()
  assert.equal((await client.query('SELECT current_user AS who')).rows, [{ who: 'gitea' }])
  await client.end()
  const { body } = await control(subject, 'GET', '/objects')
  assert.equal(
    body.cloudflare.dns_records.map(({ name }: { name: string }) => name).sort(),
    ['acme.app', 'git-ssh', 'git', 'registry'].map((name) => `${name}.lunarfront.test`),
  )
  assert.equal(body.spaces, { 'lunar-backups': [], 'lunar-files': [], 'lunar-state': ['terraform.tfstate'] })
})

test('what the real providers mark as sensitive does not show', async () => {
  const { password } = JSON.parse(await succeed(lunar, 'output', '-json')).postgres.value
  const shown = await succeed(lunar, 'show')
  assert.not.ok(shown.includes(password))
  assert.match(shown, /password\s+= \(sensitive value\)/)
})

test('a change made behind Terraform’s back is seen, and put right', async () => {
  const { firewalls } = (await digitalocean(subject, 'GET', '/firewalls')).body
  const opened = [{ protocol: 'tcp', ports: '5432', sources: { addresses: ['0.0.0.0/0'] } }]
  await digitalocean(subject, 'PUT', `/firewalls/${firewalls[0].id}`, { ...firewalls[0], inbound_rules: opened })
  const { zone_id } = subject.cloud.cloudflare
  const [record] = (await cloudflare(subject, 'GET', `/zones/${zone_id}/dns_records?name=git.lunarfront.test`)).body
    .result
  await cloudflare(subject, 'PATCH', `/zones/${zone_id}/dns_records/${record.id}`, { content: '192.0.2.66' })
  const { databases } = (await digitalocean(subject, 'GET', '/databases')).body
  const postgres = databases.find(({ name }: { name: string }) => name === 'lunar-postgres')
  await digitalocean(subject, 'PUT', `/databases/${postgres.id}/maintenance`, { day: 'monday', hour: '03:00' })

  const drift = await planned(lunar)
  assert.is(drift.code, 2, drift.output)
  assert.match(drift.output, /digitalocean_firewall\.gitea will be updated in-place/)
  assert.match(drift.output, /cloudflare_dns_record\.gitea\["git"\] will be updated in-place/)
  assert.match(drift.output, /digitalocean_database_cluster\.postgres will be updated in-place/)
  assert.match(drift.output, /0 to add, 3 to change, 0 to destroy/)
  await succeed(lunar, 'apply', '-input=false', '-auto-approve')
  assert.is((await planned(lunar)).code, 0)
})

test('what was deleted behind its back is made again', async () => {
  const { zone_id } = subject.cloud.cloudflare
  const [record] = (await cloudflare(subject, 'GET', `/zones/${zone_id}/dns_records?type=CNAME`)).body.result
  await cloudflare(subject, 'DELETE', `/zones/${zone_id}/dns_records/${record.id}`)
  const gone = await planned(lunar)
  assert.match(gone.output, /cloudflare_dns_record\.customer\["acme"\] will be created/)
  assert.match(gone.output, /1 to add, 0 to change, 0 to destroy/)
  await succeed(lunar, 'apply', '-input=false', '-auto-approve')
})

test('a new customer’s folder is one record to add, and nothing else', async () => {
  const folder = join(lunar.directory, 'apps', 'customer-globex')
  mkdirSync(folder)
  writeFileSync(join(folder, 'values.yaml'), 'customer: globex\nsubdomain: globex\n')
  const { output } = await planned(lunar)
  assert.match(output, /cloudflare_dns_record\.customer\["globex"\] will be created/)
  assert.match(output, /1 to add, 0 to change, 0 to destroy/)
  await succeed(lunar, 'apply', '-input=false', '-auto-approve')
})

/** What holds data, or an address or a password that others know. */
const PROTECTED = [
  'digitalocean_database_cluster.gitea',
  'digitalocean_database_cluster.postgres',
  'digitalocean_database_cluster.valkey',
  'digitalocean_database_db.gitea',
  'digitalocean_database_user.gitea',
  'digitalocean_droplet.gitea',
  'digitalocean_kubernetes_cluster.main',
  'digitalocean_reserved_ip.gitea',
  'digitalocean_spaces_bucket.this["backups"]',
  'digitalocean_spaces_bucket.this["files"]',
  'digitalocean_spaces_bucket.this["state"]',
]

test('prevent_destroy holds, on each that must not go', async () => {
  const refused = async (...args: string[]) => {
    const { code, output } = await terraform(lunar, 'plan', '-input=false', ...args)
    assert.is(code, 1, output)
    const lines = output.replaceAll(/\n[│ ]*/g, ' ')
    return [...lines.matchAll(/Resource (\S+) has lifecycle.prevent_destroy set/g)].map(([, address]) => address ?? '')
  }
  // A plan ends at what it may not touch: from one side it meets Gitea's database and user, from the other their server.
  const found = [...(await refused('-destroy')), ...(await refused('-replace=digitalocean_database_cluster.gitea'))]
  assert.equal([...new Set(found)].sort(), PROTECTED)
})

test('another node size is refused, for it would replace the cluster', async () => {
  const { code, output } = await terraform(lunar, 'plan', '-input=false', '-var=node_size=s-4vcpu-8gb')
  assert.is(code, 1)
  assert.match(output, /digitalocean_kubernetes_cluster.main has\s+lifecycle.prevent_destroy/)
})

test('a platform that runs plans clean when its Kubernetes version is no longer offered', async () => {
  const { code, output } = await planned(lunar, '-var=kubernetes_version=1.30')
  assert.is(code, 0, output)
})

test('Terraform locks the state, and whoever finds it locked is told by whom', async () => {
  const lock = 'terraform.tfstate.tflock'
  await control(subject, 'DELETE', '/requests')
  assert.is((await planned(lunar)).code, 0)
  const calls = (await control(subject, 'GET', '/requests')).body.filter(({ path }: Call) => path.includes(lock))
  const seen = calls.map(({ method, status }: Call) => `${method} ${status}`)
  assert.equal([seen[0], seen.at(-1)], ['PUT 200', 'DELETE 204'])

  const { sdk, client } = await openSpaces(subject.cloud.spaces)
  const held = { Bucket: 'lunar-state', Key: lock }
  const Body = JSON.stringify({
    ID: 'x',
    Operation: 'OperationTypeApply',
    Who: 'somebody@elsewhere',
    Version: '1.11.4',
  })
  await client.send(new sdk.PutObjectCommand({ ...held, Body }))
  const refused = await planned(lunar)
  assert.is(refused.code, 1)
  assert.match(refused.output, /Error acquiring the state lock/)
  assert.match(refused.output, /Who:\s+somebody@elsewhere/)
  await client.send(new sdk.DeleteObjectCommand(held))
  client.destroy()
  assert.is((await planned(lunar)).code, 0)
})

test('with prevent_destroy taken out everything goes, but for the bucket that holds the state', async () => {
  for (const file of readdirSync(lunar.directory).filter((name) => name.endsWith('.tf'))) {
    const path = join(lunar.directory, file)
    writeFileSync(path, readFileSync(path, 'utf8').replaceAll('prevent_destroy = true', 'prevent_destroy = false'))
  }
  const { code, output } = await terraform(lunar, 'destroy', '-auto-approve', '-input=false')
  assert.is(code, 1)
  assert.match(output, /bucket you tried to delete is not empty/)
  const { body } = await control(subject, 'GET', '/objects')
  const { projects, tags, ...left } = body.digitalocean
  assert.equal(
    Object.values<object>(left).flatMap((each) => Object.values(each)),
    [],
    JSON.stringify(left),
  )
  assert.equal([body.cloudflare.dns_records, Object.keys(body.spaces)], [[], ['lunar-state']])
})

test('everything that can be imported plans clean afterwards', async () => {
  const post = async (path: string, body: object) => (await digitalocean(subject, 'POST', path, body)).body
  const { vpc } = await post('/vpcs', { name: 'old', region: 'nyc3', ip_range: '10.50.0.0/20' })
  const { droplet } = await post('/droplets', {
    ...{ name: 'old', region: 'nyc3', size: 's-1vcpu-1gb', image: 'debian-12-x64', vpc_uuid: vpc.id },
  })
  const { reserved_ip } = await post('/reserved_ips', { region: 'nyc3' })
  const { kubernetes_cluster: cluster } = await post('/kubernetes/clusters', {
    ...{ name: 'old', region: 'nyc3', version: '1.34.6-do.0', ha: false, vpc_uuid: vpc.id },
    node_pools: [{ name: 'workers', size: 's-2vcpu-4gb', count: 1 }],
  })
  const { result } = (
    await cloudflare(subject, 'POST', `/zones/${subject.cloud.cloudflare.zone_id}/dns_records`, {
      ...{ name: 'old.lunarfront.test', type: 'CNAME', content: 'lb.lunarfront.test', ttl: 300 },
    })
  ).body
  const workplace = await small(
    'old',
    `
resource "digitalocean_vpc" "x" {
  name     = "old"
  region   = "nyc3"
  ip_range = "10.50.0.0/20"
}
resource "digitalocean_droplet" "x" {
  name     = "old"
  region   = "nyc3"
  size     = "s-1vcpu-1gb"
  image    = "debian-12-x64"
  vpc_uuid = digitalocean_vpc.x.id
}
resource "digitalocean_reserved_ip" "x" {
  region = "nyc3"
}
resource "digitalocean_kubernetes_cluster" "x" {
  name     = "old"
  region   = "nyc3"
  version  = "1.34.6-do.0"
  vpc_uuid = digitalocean_vpc.x.id
  node_pool {
    name       = "workers"
    size       = "s-2vcpu-4gb"
    node_count = 1
  }
  lifecycle {
    ignore_changes = [surge_upgrade]
  }
}
resource "cloudflare_dns_record" "x" {
  zone_id = "${subject.cloud.cloudflare.zone_id}"
  name    = "old.lunarfront.test"
  type    = "CNAME"
  content = "lb.lunarfront.test"
  ttl     = 300
}
variable "name" { type = string }
`,
  )
  const imports = {
    'digitalocean_vpc.x': vpc.id,
    'digitalocean_droplet.x': droplet.id,
    'digitalocean_reserved_ip.x': reserved_ip.ip,
    'digitalocean_kubernetes_cluster.x': cluster.id,
    'cloudflare_dns_record.x': `${subject.cloud.cloudflare.zone_id}/${result.id}`,
  }
  for (const [address, id] of Object.entries(imports))
    await succeed(workplace, 'import', '-input=false', address, String(id))
  const clean = await planned(workplace)
  // What Terraform alone knows of is filled in: nothing is replaced and nothing made.
  assert.match(clean.output, /No changes|0 to add, [01] to change, 0 to destroy/)
  assert.match((await terraform(workplace, 'import', 'digitalocean_vpc.none', 'x')).output, /does not exist|Error/)
  await succeed(workplace, 'destroy', '-auto-approve', '-input=false')
})

test('a wrong token fails, another Terraform at the same time with the right one does not', async () => {
  const [wrong, right, given] = await Promise.all([small('wrong', VPC), small('right', VPC), small('given', VPC)])
  wrong.environment.DIGITALOCEAN_TOKEN = 'wrong'
  // Said in the configuration, it counts more than in the environment.
  given.environment.DIGITALOCEAN_TOKEN = 'wrong'
  const file = join(given.directory, 'provider.tf')
  writeFileSync(file, `provider "digitalocean" {\n  token = "${subject.cloud.digitalocean.token}"\n}\n`)
  const apply = (workplace: Workplace) => terraform(workplace, 'apply', '-auto-approve', '-input=false')
  const [refused, ...made] = await Promise.all([apply(wrong), apply(right), apply(given)])
  if (process.platform === 'linux') {
    assert.is(refused?.code, 1)
    assert.match(refused?.output ?? '', /401 Unable to authenticate you/)
  }
  for (const { code, output } of made) assert.is(code, 0, output)
  const { vpcs } = (await digitalocean(subject, 'GET', '/vpcs')).body
  const names = vpcs.map(({ name }: { name: string }) => name)
  assert.equal([names.includes('right'), names.includes('given'), names.includes('wrong')], [true, true, false])
  for (const workplace of [right, given]) await succeed(workplace, 'destroy', '-auto-approve', '-input=false')
})

test('429, 500 and broken connections are got over', async () => {
  const workplace = await small('patient', VPC)
  const path = '/v2/vpcs'
  for (const consequence of [{ status: 429, retry_after: 0 }, { status: 500 }, { drop: true }])
    await control(subject, 'POST', '/faults', fault({ api: 'digitalocean', path, times: 1 }, consequence))
  await succeed(workplace, 'apply', '-auto-approve', '-input=false')
  assert.equal((await control(subject, 'GET', '/faults')).body.faults, [])
  await succeed(workplace, 'destroy', '-auto-approve', '-input=false')
})

test('an API that stays broken is told in its own words', async () => {
  const workplace = await small('hopeless', VPC)
  await control(
    subject,
    'POST',
    '/faults',
    fault({ api: 'digitalocean', path: '/v2/vpcs' }, { status: 503, retry_after: 0 }),
  )
  const { code, output } = await terraform(workplace, 'apply', '-auto-approve', '-input=false')
  await control(subject, 'DELETE', '/faults')
  assert.is(code, 1)
  assert.match(output, /503 Service is currently unavailable/)
})

test('SIGINT while something never becomes ready: Terraform ends, and keeps what exists', async () => {
  const workplace = await small(
    'stuck',
    `
variable "name" { type = string }
resource "digitalocean_droplet" "x" {
  name   = var.name
  region = "nyc3"
  size   = "s-1vcpu-1gb"
  image  = "debian-12-x64"
}
`,
  )
  const target = { api: 'digitalocean', method: 'POST', path: '/v2/droplets$', times: 1 }
  await control(subject, 'POST', '/faults', fault(target, { never_ready: true }))
  const { directory, environment } = workplace
  const child = spawn(subject.tools.terraform, ['apply', '-no-color', '-auto-approve', '-input=false'], {
    ...{ cwd: directory, env: environment, stdio: ['ignore', 'pipe', 'pipe'] },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  const ended = once(child, 'close')
  const droplets = async () => (await digitalocean(subject, 'GET', '/droplets')).body.droplets
  const isStuck = ({ name }: { name: string }) => name === 'stuck'
  await until(droplets, (found) => found.some(isStuck))
  child.kill('SIGINT')
  const [code] = await ended
  assert.is(code, 1)
  assert.match(output, /interrupted while waiting for droplet stuck/)
  const state = JSON.parse(await succeed(workplace, 'show', '-json'))
  assert.is(state.values.root_module.resources[0].tainted, true)
  const replaced = await planned(workplace)
  assert.match(replaced.output, /is tainted, so must be replaced/)
  await succeed(workplace, 'destroy', '-auto-approve', '-input=false')
  assert.not.ok((await droplets()).some(isStuck))
})

test('terraform test with mocked providers', async () => {
  const workplace = await small('mocked', VPC)
  writeFileSync(
    join(workplace.directory, 'x.tftest.hcl'),
    `mock_provider "digitalocean" {}
run "name" {
  command = apply
  assert {
    condition     = digitalocean_vpc.x.name == "mocked"
    error_message = "wrong name"
  }
}
`,
  )
  assert.match(await succeed(workplace, 'test'), /1 passed, 0 failed/)
})

test.run()
