// The Git repository that Argo CD reads: this project and the customers' values files. Runbooks never commit in the
// operator's checkout; every run works in a fresh clone of its own.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import type { Output } from './exec.ts'
import { Failure } from './failure.ts'
import { once, type Run } from './run.ts'
import { ROOT } from './site.ts'

const BRANCH = 'main'
/** How often a push is tried again when somebody else was quicker. */
const ATTEMPTS = 8

/** Git, without questions, hooks or signatures of the operator's own, and in English. */
function git(
  run: Run,
  directory: string,
  args: string[],
  options: { codes?: number[]; next?: string } = {},
): Promise<Output> {
  return run.exec({
    argv: ['git', '-c', 'core.hooksPath=/dev/null', '-c', 'commit.gpgSign=false', ...args],
    cwd: directory,
    env: {
      GIT_TERMINAL_PROMPT: '0',
      GIT_SSH_COMMAND: 'ssh -o BatchMode=yes',
      LC_ALL: 'C',
      GIT_COMMITTER_NAME: 'LunarFront runbooks',
      GIT_COMMITTER_EMAIL: `runbooks@${run.site.domain}`,
    },
    timeout: 300,
    ...options,
  })
}

/** @returns the commit at the head of the repository's main branch; undefined when it has none yet */
export async function remoteHead(run: Run): Promise<string | undefined> {
  const { stdout } = await git(run, ROOT, ['ls-remote', '--heads', run.site.repository, BRANCH], {
    next: `git ls-remote ${run.site.repository}, which has to work without a question`,
  })
  return stdout.split('\t')[0] || undefined
}

/** What Git says about the operator's checkout. */
export async function checkoutProblems(run: Run): Promise<string[]> {
  const inside = await git(run, ROOT, ['rev-parse', '--is-shallow-repository'], { codes: [0, 128] })
  if (inside.code !== 0) return [`${ROOT} is no Git checkout`]
  const { stdout } = await git(run, ROOT, ['status', '--porcelain', '--untracked-files=normal'])
  const changed = stdout.split('\n').filter((line) => line && !line.endsWith(' terraform/.terraform.lock.hcl'))
  return [
    ...(inside.stdout.trim() === 'true'
      ? ['this checkout is shallow, so it cannot be pushed: git fetch --unshallow']
      : []),
    ...(changed.length > 0 && !run.site.allow_uncommitted_changes
      ? [
          `there are uncommitted changes: ${changed
            .map((line) => line.slice(3))
            .slice(0, 5)
            .join(', ')}${changed.length > 5 ? ' …' : ''}`,
        ]
      : []),
  ]
}

export type Repository = {
  run: Run
  /** the folder of a fresh clone of the main branch; fetched once more when the run has taken the lock */
  clone: () => Promise<string>
}

export function openRepository(run: Run): Repository {
  const directory = join(run.scratch, 'clone')
  const first = once(async () => {
    if (!(await remoteHead(run)))
      throw new Failure({
        found: `the repository ${run.site.repository} has no branch ${BRANCH} yet`,
        next: './runbooks/bootstrap.mts, which fills it',
        notYet: true,
      })
    await git(run, run.scratch, ['clone', '--quiet', '--no-tags', '--branch', BRANCH, run.site.repository, directory])
  })
  // Until it held the lock, another run may have pushed.
  const underLock = once(() => update(run, directory))
  return {
    run,
    clone: async () => {
      await first()
      if (run.locked()) await underLock()
      return directory
    },
  }
}

/** Brings a clone to what the repository's main branch is now. */
async function update(run: Run, directory: string): Promise<void> {
  await git(run, directory, ['fetch', '--quiet', 'origin', BRANCH])
  await git(run, directory, ['reset', '--quiet', '--hard', `origin/${BRANCH}`])
}

/**
 * Bootstrap's part: the repository's main branch has everything that this checkout has committed.
 *
 * @throws when each has commits that the other lacks: that is for a person to merge
 */
export function publishedStep(run: Run, { needs }: { needs?: readonly AnyStep[] } = {}): Step {
  /** A bare repository of this run that has both histories. */
  const compare = async (): Promise<{
    head: string
    remote: string | undefined
    ancestor: (a: string, b: string) => Promise<boolean>
    bare: string
  }> => {
    const head = (await git(run, ROOT, ['rev-parse', 'HEAD'])).stdout.trim()
    const remote = await remoteHead(run)
    const bare = join(run.scratch, 'histories')
    const ancestor = async (older: string, newer: string) =>
      (await git(run, bare, ['merge-base', '--is-ancestor', older, newer], { codes: [0, 1] })).code === 0
    if (remote && remote !== head) {
      if (!existsSync(bare)) await git(run, run.scratch, ['init', '--quiet', '--bare', bare])
      await git(run, bare, ['fetch', '--quiet', '--no-tags', run.site.repository, BRANCH])
      await git(run, bare, ['fetch', '--quiet', '--no-tags', ROOT, 'HEAD'])
    }
    return { head, remote, ancestor, bare }
  }
  return step<Drift>({
    title: `repository ${run.site.repository} has this checkout’s commits`,
    ...(needs ? { needs } : {}),
    check: async () => {
      const { head, remote, ancestor } = await compare()
      const line = `push ${head.slice(0, 12)} to ${BRANCH}`
      if (!remote) return { lines: [`${line}, which is empty`] }
      if (remote === head || (await ancestor(head, remote))) return undefined
      if (await ancestor(remote, head)) return { lines: [`${line}, which is at ${remote.slice(0, 12)}`] }
      throw new Failure({
        found: `the repository is at ${remote.slice(0, 12)} and this checkout at ${head.slice(0, 12)}, and each has commits that the other lacks`,
        expected: 'a checkout that goes on from the repository',
        next: `git pull --rebase ${run.site.repository} ${BRANCH}`,
      })
    },
    apply: async () => {
      // Not forced: should somebody have pushed since, this is refused and the next run looks again.
      await git(run, ROOT, ['push', '--quiet', run.site.repository, `HEAD:refs/heads/${BRANCH}`], {
        next: 'run it again: it looks anew at what the repository has',
      })
    },
  })
}

/**
 * A file on the repository's main branch.
 *
 * @param options.path in the repository
 * @param options.check looks at the file's text in a fresh clone (undefined: it is not there) and returns the text it
 *   should have, or undefined when it is right as it is
 */
export function fileStep(
  repository: Repository,
  options: {
    title: string
    path: string
    message: string
    check: (text: string | undefined) => string | undefined
    needs?: readonly AnyStep[]
  },
): Step {
  const { run } = repository
  const { title, path, message, check, needs } = options
  const wanted = async () => {
    const file = join(await repository.clone(), path)
    return check(existsSync(file) ? readFileSync(file, 'utf8') : undefined)
  }
  return step<Drift>({
    title,
    ...(needs ? { needs } : {}),
    check: async () => ((await wanted()) === undefined ? undefined : { lines: [`commit and push ${path}`] }),
    apply: async (_drift, work) => {
      const directory = await repository.clone()
      for (let attempt = 1; ; attempt++) {
        await update(run, directory)
        const text = await wanted()
        if (text === undefined) return
        mkdirSync(dirname(join(directory, path)), { recursive: true })
        writeFileSync(join(directory, path), text)
        await git(run, directory, ['add', '--', path])
        await git(run, directory, [...(await author(run)), 'commit', '--quiet', '-m', message])
        const { code, stdout } = await git(
          run,
          directory,
          ['push', '--porcelain', 'origin', `HEAD:refs/heads/${BRANCH}`],
          { codes: [0, 1] },
        )
        if (code === 0) return
        const reason =
          stdout
            .split('\n')
            .find((line) => line.startsWith('!'))
            ?.split('\t')
            .at(-1) ?? stdout.trim()
        if (attempt === ATTEMPTS)
          throw new Failure({
            found: `the push of ${path} was refused ${ATTEMPTS} times: ${reason}`,
            expected: `a push to ${BRANCH}`,
            next: `git push ${run.site.repository} by hand shows whether this key may write`,
          })
        work.waitingFor(`the repository: ${reason}; trying again`)
      }
    },
  })
}

/** The operator is the author where Git knows a name; without one the runbooks are. */
async function author(run: Run): Promise<string[]> {
  const known = await git(run, ROOT, ['config', 'user.email'], { codes: [0, 1] })
  return known.stdout.trim()
    ? []
    : ['-c', 'user.name=LunarFront runbooks', '-c', `user.email=runbooks@${run.site.domain}`]
}
