// What the nightly backup on Gitea's droplet is given: where the database is, Spaces, and the site file.
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { spacesEnvironment } from './backup-credentials.ts'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { GITEA_POSTGRES_FILE } from './credentials.ts'
import type { Droplet } from './droplet.ts'
import { confidential } from './secret.ts'

/** As the unit of ansible/roles/gitea has it, and as its container sees the same folder. */
const FOLDER = '/srv/backup'
const WITHIN = '/var/lib/lunarfront'

/** A Spaces key of the schedule's own that it has stays, where this shell knows none. */
export function giteaScheduleStep({ run, outputs, ssh }: Droplet, { needs }: { needs: readonly AnyStep[] }): Step {
  const { site, environment } = run
  const read = async (name: string) => {
    const { code, stdout } = await (await ssh()).run({ argv: ['cat', `${FOLDER}/${name}`], codes: [0, 1] })
    return code === 0 ? confidential(stdout) : undefined
  }
  const wanted = async (): Promise<Record<string, string>> => {
    const { password, admin: _, ...server } = (await outputs()).giteaPostgres
    const kept = await read('environment')
    const keeps = kept?.includes('OWN_SPACES_KEY=true') && !environment.BACKUP_SPACES_ACCESS_KEY_ID
    const variables = {
      LUNARFRONT_SITE: `${WITHIN}/lunarfront.yaml`,
      [GITEA_POSTGRES_FILE]: `${WITHIN}/gitea-postgres.json`,
      ...spacesEnvironment(run),
      ...(environment.BACKUP_SPACES_ACCESS_KEY_ID ? { OWN_SPACES_KEY: 'true' } : {}),
    }
    const lines = Object.entries(variables).map(([name, value]) => `${name}=${value}\n`)
    return {
      'lunarfront.yaml': readFileSync(site.file, 'utf8'),
      'gitea-postgres.json': confidential(JSON.stringify({ ...server, password: password.reveal() })),
      environment: (keeps && kept) || lines.join(''), // the last, without which nothing begins
    }
  }
  const differing = async () => {
    const files = Object.entries(await wanted())
    const found = await Promise.all(files.map(([name]) => read(name)))
    return files.filter(([, text], index) => found[index] !== text)
  }
  return step<Drift>({
    title: 'Gitea’s nightly backup has what it needs to know',
    needs,
    check: async () => {
      const lines = (await differing()).map(([name]) => `write ${FOLDER}/${name}`)
      return lines.length > 0 ? { lines } : undefined
    },
    apply: async () => {
      const { run: on, upload } = await ssh()
      await on({ argv: ['install', '--directory', '--mode=0700', FOLDER] })
      for (const [name, text] of await differing()) await upload(Readable.from([text]), `${FOLDER}/${name}`, 0o600)
    },
  })
}
