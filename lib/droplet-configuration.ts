// What Gitea's droplet is to be: what its database has to allow, and what ansible/ says.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { reveal, runPlaybook } from './ansible.ts'
import { type AnyStep, type Drift, type Step, step, type Work } from './converge.ts'
import { type Droplet, SSH_KEY } from './droplet.ts'
import { knownHostsFile } from './host-keys.ts'
import { inventoryFile } from './inventory.ts'
import type { Outputs } from './outputs.ts'
import { withPostgres } from './postgres.ts'
import { ROOT, type Site } from './site.ts'

/**
 * Since Postgres 15 only a database's owner may make anything in its schema public, and what DigitalOcean's API makes is
 * its administrator's: https://www.postgresql.org/docs/15/release-15.html
 */
export function databaseStep({ outputs, wayTo }: Droplet, { needs }: { needs: readonly AnyStep[] }): Step {
  const asAdministrator = async <T>(work: (client: pg.Client, user: string) => Promise<T>): Promise<T> => {
    const { giteaPostgres: server } = await outputs()
    return withPostgres({ ...server, ...server.admin, ...(await wayTo(server)) }, (client) => work(client, server.user))
  }
  return step<Drift>({
    title: 'Gitea may make tables in its database',
    needs,
    check: () =>
      asAdministrator(async (client, user) => {
        const asked = "SELECT has_schema_privilege($1, 'public', 'CREATE') AS may"
        const { rows } = await client.query<{ may: boolean }>(asked, [user])
        return rows[0]?.may ? undefined : { lines: [`GRANT ALL ON SCHEMA public TO ${user}`] }
      }),
    apply: () =>
      asAdministrator(async (client, user) => {
        await client.query(`GRANT ALL ON SCHEMA public TO ${pg.escapeIdentifier(user)}`)
      }),
  })
}

/** What the role leaves on the droplet when all of it was done: of what it was made, and what it wrote. */
const LEFT = '/var/lib/lunarfront'

/** @returns SHA-256 of all that the droplet is made of */
function fingerprintOf(variables: Record<string, unknown>): string {
  const folder = join(ROOT, 'ansible')
  const hash = createHash('sha256')
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !/\.pyc$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
  for (const file of files.sort()) hash.update(`${file.slice(folder.length)}\n`).update(readFileSync(file))
  return hash.update(JSON.stringify(variables, reveal)).digest('hex')
}

/** What the role has to be given, and what the site says besides. */
function variablesOf(site: Site, { giteaPostgres }: Outputs): Record<string, unknown> {
  const { host, port, database, user, password, ca } = giteaPostgres
  return {
    ...(site.runbooks_image ? { gitea_backup_image: site.runbooks_image } : {}),
    ...(site.acme ? { gitea_acme_server: site.acme.server, gitea_acme_email: site.acme.email } : {}),
    ...site.ansible,
    gitea_operator_keys: Object.values(site.operator_ssh_keys)
      .map((key) => `${key.trim()}\n`)
      .join(''),
    gitea_database: { host, port, name: database, user, password, ca },
  }
}

async function given({ run: { site }, outputs }: Droplet) {
  const variables = variablesOf(site, await outputs())
  return { ...variables, gitea_fingerprint: fingerprintOf(variables) }
}

/**
 * Plays ansible/gitea.yml.
 *
 * @param options.check only looks
 * @returns what it has changed, or would; throws a Failure with the words of the task that failed
 */
async function configure(droplet: Droplet, options: { check: boolean }, work: Work) {
  const { run } = droplet
  const playbook = {
    file: 'gitea.yml',
    inventory: inventoryFile(run.site),
    knownHosts: knownHostsFile(run.site),
    identity: run.environment[SSH_KEY],
    variables: await given(droplet),
  }
  return runPlaybook(run, playbook, options, work)
}

/** Ansible only looks where a quick look finds nothing: whether all that it has written is as it was, and runs. */
export function dropletStep(droplet: Droplet, { needs }: { needs: readonly AnyStep[] }): Step {
  const { run, ssh } = droplet
  const differing = async (): Promise<string[]> => {
    const { gitea_fingerprint: wanted } = await given(droplet)
    const look = ['sh', '-c', `cat ${LEFT}/fingerprint && ${LEFT}/look`]
    const { code, stdout } = await (await ssh()).run({ argv: look, codes: [0, 1] })
    const [fingerprint, ...rest] = stdout.trim().split('\n')
    if (!fingerprint) return ['run ansible/gitea.yml']
    if (fingerprint !== wanted) return ['run ansible/gitea.yml, which has changed since, or what it is given']
    return code === 0 ? [] : rest
  }
  return step<Drift>({
    title: 'the droplet is as ansible/ says',
    needs,
    check: async (work) => {
      const lines = await differing()
      if (lines.length === 0) return undefined
      if (!run.plan) return { lines }
      const changes = await configure(droplet, { check: true }, work)
      return { lines: [...lines, ...changes.flatMap(({ task, diff }) => [task, ...diffLines(diff)])] }
    },
    apply: async (_drift, work) => {
      await configure(droplet, { check: false }, work)
    },
  })
}

const diffLines = (diff: string) => diff.split('\n').filter((line) => /^[-+](?![-+]{2} )/.test(line))
