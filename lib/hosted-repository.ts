// The site's own repository in its Gitea: by which key its host is known, that it is there, and that Argo CD may read it.
import { existsSync, readFileSync } from 'node:fs'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import type { Droplet } from './droplet.ts'
import { writeWhole } from './files.ts'
import { bareKey, type Gitea, keysSchema } from './gitea.ts'
import { knownAs, knownHostsFile, knownKeys } from './host-keys.ts'
import { deployKeyFile } from './repository-access.ts'
import { gitHost, requireHosted } from './repository-address.ts'

/** As ansible/roles/gitea has it. */
const HOST_KEY = '/srv/gitea/secrets/ssh-host-key'
const MAKE_KEY = `
set -e
umask 077
mkdir -p "$(dirname "$1")"
[ -e "$1" ] || { rm -f "$1.new"; ssh-keygen -q -t ed25519 -N '' -C '' -f "$1.new"; mv "$1.new" "$1"; }
ssh-keygen -y -f "$1"`

/**
 * Gitea's SSH server has a key of its own. It is made before Gitea is there, so that whoever is to read the repository can
 * be told it as early, and learnt over SSH from the droplet, whose keys are known.
 */
export function gitHostKeyStep({ run, ssh }: Droplet, { needs }: { needs: readonly AnyStep[] }): Step {
  const file = knownHostsFile(run.site)
  const host = gitHost(run.site)
  return step<Drift>({
    title: 'Gitea’s SSH host key is known',
    needs,
    check: async () => {
      if ((await knownKeys(run.exec, file, host)).length > 0) return undefined
      return { lines: [`learn the host key of ${knownAs(host)}, and keep it in ${file}`] }
    },
    apply: async () => {
      const { stdout } = await (await ssh()).run({ argv: ['sh', '-c', MAKE_KEY, 'sh', HOST_KEY] })
      const kept = existsSync(file) ? readFileSync(file, 'utf8') : ''
      const names = [host, { ...host, host: `git.${run.site.domain}` }].map(knownAs).join(',')
      writeWhole(file, `${kept}${names} ${bareKey(stdout)}\n`)
    },
  })
}

/** It is empty at first: what fills it is the checkout. */
export function repositoryStep({ droplet, api }: Gitea, needs: readonly AnyStep[]): Step {
  const { site } = droplet.run
  const { owner, name } = requireHosted(site)
  return step<Drift>({
    title: `Gitea has the repository ${owner}/${name}`,
    needs,
    check: async () =>
      (await api('GET', `/repos/${owner}/${name}`)) ? undefined : { lines: [`create repository ${owner}/${name}`] },
    apply: async () => {
      await api('POST', `/orgs/${owner}/repos`, { name, private: true, default_branch: 'main' })
    },
  })
}

const DEPLOY_KEY = 'Argo CD'

/** Argo CD reads with a key that may do nothing else. */
export function deployKeyStep({ droplet, api }: Gitea, needs: readonly AnyStep[]): Step {
  const { site } = droplet.run
  const { owner, name } = requireHosted(site)
  const path = `/repos/${owner}/${name}/keys`
  const compare = async () => {
    const wanted = readFileSync(deployKeyFile(site), 'utf8')
    const found = keysSchema.parse(await api('GET', `${path}?limit=50`))
    return {
      wanted,
      isThere: found.some(({ key }) => bareKey(key) === bareKey(wanted)),
      old: found.filter(({ key, title }) => title === DEPLOY_KEY && bareKey(key) !== bareKey(wanted)),
    }
  }
  return step<Drift>({
    title: 'Gitea lets Argo CD read the repository',
    needs,
    check: async () => {
      const { isThere, old } = await compare()
      const lines = [
        ...(isThere ? [] : ['add Argo CD’s deploy key']),
        ...old.map(({ id }) => `remove deploy key ${id}, which Argo CD has no more`),
      ]
      return lines.length > 0 ? { lines } : undefined
    },
    apply: async () => {
      const { wanted, isThere, old } = await compare()
      for (const { id } of old) await api('DELETE', `${path}/${id}`)
      if (!isThere) await api('POST', path, { title: DEPLOY_KEY, key: wanted.trim(), read_only: true })
    },
  })
}
