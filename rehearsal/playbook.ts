// The droplet's playbook alone, as a person runs it without any runbook: what bootstrap is held against.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { sshArguments } from '../lib/host-keys.ts'
import { dropletAddress, type Rehearsal, siteDirectoryOf } from './site.ts'

const run = promisify(execFile)

/** @returns a function that plays it, and returns what Ansible prints; bootstrap has to have been run */
export async function openPlaybook({
  directory,
  env,
  siteFile,
}: Rehearsal): Promise<(...args: string[]) => Promise<string>> {
  const outputs = await run('terraform', ['-chdir=terraform', 'output', '-json', 'gitea_postgres'], { env })
  const { host, port, user, password, database: name, ca } = JSON.parse(outputs.stdout)
  const known = sshArguments({ directory: siteDirectoryOf(directory) }, env.LUNARFRONT_SSH_KEY)
  const there = `root@${dropletAddress(directory)}`
  const fingerprint = await run('ssh', [...known, there, 'cat', '/var/lib/lunarfront/fingerprint'])
  const site = parse(readFileSync(siteFile, 'utf8'))
  const kept = siteDirectoryOf(directory)
  const variables = join(directory, 'variables.json')
  const given = {
    ...site.ansible,
    gitea_operator_keys: `${site.operator_ssh_keys.rehearsal}\n`,
    gitea_database: { host, port, name, user, password, ca },
    gitea_fingerprint: fingerprint.stdout.trim(), // as the droplet has it: bootstrap is to find nothing changed
  }
  writeFileSync(variables, JSON.stringify(given), { mode: 0o600 })
  const ssh = `-o UserKnownHostsFile=${join(kept, 'known_hosts')} -o ControlMaster=auto -o ControlPersist=10s`
  const usual = ['ansible/gitea.yml', '-i', join(kept, 'inventory.ini'), '-e', `@${variables}`]
  return async (...args) => {
    const { stdout } = await run('ansible-playbook', [...usual, `--private-key=${env.LUNARFRONT_SSH_KEY}`, ...args], {
      env: { ...env, ANSIBLE_STDOUT_CALLBACK: 'default', ANSIBLE_SSH_ARGS: ssh, LC_ALL: 'C.UTF-8' },
    })
    return stdout
  }
}
