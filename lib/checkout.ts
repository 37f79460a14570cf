// The operator's checkout of this project against the site's repository: nothing in it that nobody else could have, nothing
// older than there, and its commits published.
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import type { Output } from './exec.ts'
import { Failure } from './failure.ts'
import { BRANCH, git, type Repository } from './repository.ts'
import { ROOT } from './site.ts'

/** Git in the clone, which sees the checkout's commits there as well, so that both histories can be compared. */
async function compare(repository: Repository, args: string[], codes: number[]): Promise<Output> {
  const { objects } = await repository.checkout()
  const env = { GIT_ALTERNATE_OBJECT_DIRECTORIES: JSON.stringify(objects) }
  return git(repository.run, await repository.clone(), args, { codes, env })
}

/** Throws a Failure when the operator's checkout is not what everybody has, or could have. */
export async function requireCleanCheckout({ run, checkout }: Repository): Promise<void> {
  const expected = 'a checkout whose state is committed, so that others can have it too'
  const { shallow } = await checkout()
  if (shallow)
    throw new Failure({
      found: 'this checkout is shallow, so it cannot be pushed',
      expected,
      next: 'git fetch --unshallow',
    })
  if (run.site.allow_uncommitted_changes) return
  const [status, branch] = await Promise.all([
    git(run, ROOT, ['status', '--porcelain', '--untracked-files=normal']),
    git(run, ROOT, ['branch', '--show-current']),
  ])
  const changed = status.stdout.split('\n').filter((line) => line && !line.endsWith(' terraform/.terraform.lock.hcl'))
  const names = changed.map((line) => line.slice(3))
  if (names.length > 0)
    throw new Failure({
      found: `there are uncommitted changes: ${names.slice(0, 5).join(', ')}${names.length > 5 ? ' …' : ''}`,
      expected,
      next: 'git status',
    })
  if (branch.stdout.trim() !== BRANCH)
    throw new Failure({
      found: `the checkout is on ${branch.stdout.trim() || 'no branch'}`,
      expected: `the branch ${BRANCH}, which is what is published`,
      next: `git switch ${BRANCH}`,
    })
}

/** Customers' files, and the image's tags, which CI writes. */
const WRITTEN_BY_OTHERS = ['gitops/apps', 'gitops/chart/values.yaml', 'gitops/chart/canary.yaml']

/**
 * Throws a Failure when the repository has changes that this checkout lacks: they would be taken back. What others write
 * all the time apart. A repository that is empty or does not answer yet has none.
 */
export async function requireUpToDate(repository: Repository): Promise<void> {
  const [{ commit }, remote] = await Promise.all([repository.checkout(), repository.head().catch(() => undefined)])
  if (!remote || remote === commit) return
  const { stdout } = await compare(
    repository,
    ['diff', '--name-only', `${commit}...${remote}`, '--', '.', ...WRITTEN_BY_OTHERS.map((path) => `:!${path}`)],
    [0, 128], // histories without a common commit: publishing refuses that
  )
  const names = stdout.split('\n').filter(Boolean)
  if (names.length > 0)
    throw new Failure({
      found: `this checkout lacks what the repository has: ${names.slice(0, 5).join(', ')}${names.length > 5 ? ' …' : ''}`,
      expected: 'a checkout that is as new as the repository, or it would take others’ changes back',
      next: `git pull --rebase ${repository.run.site.repository} ${BRANCH}`,
    })
}

/**
 * Bootstrap's part: the repository's main branch has everything that this checkout has committed.
 *
 * @throws when each has commits that the other lacks: that is for a person to merge
 */
export function publishedStep(repository: Repository, { needs }: { needs?: readonly AnyStep[] } = {}): Step {
  const { run } = repository
  const isAncestor = async (older: string, newer: string) =>
    (await compare(repository, ['merge-base', '--is-ancestor', older, newer], [0, 1])).code === 0
  return step<Drift>({
    title: `repository ${run.site.repository} has this checkout’s commits`,
    ...(needs ? { needs } : {}),
    check: async () => {
      const [{ commit }, remote] = await Promise.all([repository.checkout(), repository.head()])
      const line = `push ${commit.slice(0, 12)} to ${BRANCH}`
      if (!remote) return { lines: [`${line}, which is empty`] }
      if (remote === commit) return undefined
      if (await isAncestor(commit, remote)) return undefined
      if (await isAncestor(remote, commit)) return { lines: [`${line}, which is at ${remote.slice(0, 12)}`] }
      throw new Failure({
        found: `the repository is at ${remote.slice(0, 12)} and this checkout at ${commit.slice(0, 12)}, and each has commits that the other lacks`,
        expected: 'a checkout that goes on from the repository',
        next: `git pull --rebase ${run.site.repository} ${BRANCH}`,
      })
    },
    apply: async () => {
      const { commit } = await repository.checkout()
      // Not forced: should somebody have pushed since, this is refused and the next run looks again.
      await repository.remote(run, ROOT, ['push', '--quiet', run.site.repository, `${commit}:refs/heads/${BRANCH}`], {
        next: 'run it again: it looks anew at what the repository has',
      })
    },
  })
}
