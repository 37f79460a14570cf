// The Git repository that Argo CD reads: this project and the customers' values files. Runbooks never commit in the
// operator's checkout; every run works in a fresh clone of its own.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { type AnyStep, type Drift, type Step, step, type Work } from './converge.ts'
import type { Command, Output } from './exec.ts'
import { Failure } from './failure.ts'
import { once, type Run } from './run.ts'
import { ROOT } from './site.ts'

export const BRANCH = 'main'
/** How often a push is tried again when somebody else was quicker. */
const ATTEMPTS = 8

/** Nobody can answer a question. */
export const PLAIN_SSH = 'ssh -o BatchMode=yes'

const committerOf = ({ site }: Run) => ({
  GIT_COMMITTER_NAME: 'LunarFront runbooks',
  GIT_COMMITTER_EMAIL: `runbooks@${site.domain}`,
})

/** Git, without questions, hooks or signatures of the operator's own, and in English. */
export function git(
  run: Run,
  directory: string,
  args: string[],
  { env = {}, ...options }: Pick<Command, 'codes' | 'next' | 'env'> = {},
): Promise<Output> {
  // Said outright: Git would look for a repository further up where there is none, and find the operator's checkout.
  const place: Record<string, string> = directory.startsWith(join(run.scratch, '/'))
    ? { GIT_DIR: join(directory, '.git'), GIT_WORK_TREE: directory }
    : {}
  return run.exec({
    argv: ['git', '-c', 'core.hooksPath=/dev/null', '-c', 'commit.gpgSign=false', ...args],
    cwd: directory,
    env: {
      GIT_TERMINAL_PROMPT: '0',
      LC_ALL: 'C',
      ...committerOf(run),
      ...place,
      ...env,
    },
    timeout: 300,
    ...options,
  })
}

export type Repository = {
  run: Run
  /** Git where it speaks to the repository's host */
  remote: typeof git
  /** the commit that the main branch is at; undefined when there is none yet */
  head: () => Promise<string | undefined>
  /** the folder of a fresh clone of the main branch */
  clone: () => Promise<string>
  /** does something in the clone while nobody else does, not even bring it up to date; it must not ask for the clone itself */
  alone: <T>(work: () => Promise<T>) => Promise<T>
  /** the operator's checkout, as Git sees it */
  checkout: () => Promise<Checkout>
}

type Checkout = { commit: string; shallow: boolean; objects: string }

/**
 * @param ssh the command by which Git reaches the host, where it is reached by SSH
 * @returns the site's repository, cloned into the run's scratch folder. It is fetched once, and once more when the run has taken
 * the lock: until then another run may have pushed.
 */
export function openRepository(run: Run, ssh: () => Promise<string> = async () => PLAIN_SSH): Repository {
  const remote: typeof git = async (of, where, args, { env, ...options } = {}) =>
    git(of, where, args, { env: { GIT_SSH_COMMAND: await ssh(), ...env }, ...options })
  const directory = join(run.scratch, 'clone')
  const isEmpty = async () => {
    const { stdout } = await remote(run, ROOT, ['ls-remote', '--heads', run.site.repository, BRANCH], {
      next: `git ls-remote ${run.site.repository}, which has to work without a question`,
    })
    return stdout === ''
  }
  /** false: there is no such branch */
  const cloned = once(async () => {
    // Of its files only those that runbooks read and write are needed, and to say so beforehand takes half as long.
    const template = join(run.scratch, 'clone-template')
    mkdirSync(join(template, 'info'), { recursive: true })
    writeFileSync(join(template, 'info', 'sparse-checkout'), '/gitops/\n')
    const sparse = [`--template=${template}`, '--config=core.sparseCheckout=true']
    const { code } = await remote(
      run,
      run.scratch,
      ['clone', '--quiet', '--no-tags', ...sparse, '--branch', BRANCH, run.site.repository, directory],
      { codes: [0, 128] }, // why, the next question tells
    )
    if (code === 0) return true
    if (await isEmpty()) return false
    throw new Failure({
      found: `the repository ${run.site.repository} answers, and still cannot be cloned`,
      next: `git clone --branch ${BRANCH} ${run.site.repository}`,
    })
  })
  const commit = async () => (await git(run, directory, ['rev-parse', 'HEAD'])).stdout.trim()
  const early = once(async () => ((await cloned()) ? commit() : undefined))
  const updated = async () => {
    if (await cloned()) await update({ run, remote }, directory)
    else cloned.forget()
    return cloned()
  }
  let last: Promise<unknown> = Promise.resolve()
  const alone = <T>(work: () => Promise<T>): Promise<T> => {
    const next = last.then(work, work)
    last = next
    return next
  }
  const underLock = once(() => alone(updated))
  const clone = async () => {
    if (await (run.locked() ? underLock() : cloned())) return directory
    underLock.forget() // this very run may fill it yet
    throw new Failure({
      found: `the repository ${run.site.repository} has no branch ${BRANCH} yet`,
      next: './runbooks/bootstrap.mts, which fills it',
      notYet: true,
    })
  }
  return {
    run,
    remote,
    clone,
    alone,
    head: async () => {
      if (!run.locked()) return early()
      return (await alone(updated)) ? commit() : undefined
    },
    checkout: once(async () => {
      const asked = ['--is-shallow-repository', '--git-path', 'objects', 'HEAD']
      const { code, stdout } = await git(run, ROOT, ['rev-parse', ...asked], { codes: [0, 128] })
      const [shallow, objects = '', commit] = stdout.split('\n')
      if (code !== 0 || !commit)
        throw new Failure({
          found: `${ROOT} is no Git checkout with a commit`,
          expected: 'a clone of this project',
          next: `git clone it, and run from there`,
        })
      return { commit, shallow: shallow === 'true', objects: resolve(ROOT, objects) }
    }),
  }
}

/** @returns whether any of the paths differs on the main branch from that commit; true also for one that is not known */
export async function changedSince(repository: Repository, commit: string, paths: readonly string[]): Promise<boolean> {
  await repository.head() // this run may have pushed since it was cloned
  const directory = await repository.clone()
  const args = ['diff', '--quiet', commit, 'HEAD', '--', ...paths]
  return (await git(repository.run, directory, args, { codes: [0, 1, 128] })).code !== 0
}

/** Brings a clone to what the repository's main branch is now. */
async function update({ run, remote }: Pick<Repository, 'run' | 'remote'>, directory: string): Promise<void> {
  await remote(run, directory, ['fetch', '--quiet', 'origin', BRANCH])
  await git(run, directory, ['reset', '--quiet', '--hard', `origin/${BRANCH}`])
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
    /** of the commit; gets the text as it was */
    message: (text: string | undefined) => string
    check: (text: string | undefined) => Promise<string | undefined>
    needs?: readonly AnyStep[]
  },
): Step {
  const { title, path, message, check, needs } = options
  const read = (directory: string) => {
    const file = join(directory, path)
    return existsSync(file) ? readFileSync(file, 'utf8') : undefined
  }
  return step<Drift>({
    title,
    ...(needs ? { needs } : {}),
    check: async () =>
      (await check(read(await repository.clone()))) === undefined ? undefined : { lines: [`commit and push ${path}`] },
    apply: async (_drift, work) =>
      pushChange(repository, path, work, async (directory) => {
        const found = read(directory)
        const text = await check(found)
        if (text === undefined) return undefined
        mkdirSync(dirname(join(directory, path)), { recursive: true })
        writeFileSync(join(directory, path), text)
        return message(found)
      }),
  })
}

/**
 * Commits a change of the main branch and pushes it; both again where somebody else was quicker.
 *
 * @param path what is changed, in the repository
 * @param change made in the clone, as the branch is now; returns the commit's message, or undefined where there is
 *   nothing to change any more
 */
export async function pushChange(
  repository: Repository,
  path: string,
  work: Work,
  change: (directory: string) => Promise<string | undefined>,
): Promise<void> {
  const { run } = repository
  const directory = await repository.clone()
  const push = async () => {
    for (let attempt = 1; ; attempt++) {
      if (attempt > 1) await update(repository, directory)
      const message = await change(directory)
      if (message === undefined) return
      await git(run, directory, ['add', '--all', '--', path])
      await git(run, directory, ['commit', '--quiet', '-m', message], { env: await author(run) })
      const target = ['--porcelain', 'origin', `HEAD:refs/heads/${BRANCH}`]
      const { code, stdout } = await repository.remote(run, directory, ['push', ...target], { codes: [0, 1] })
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
  }
  await repository.alone(push)
}

/** The operator is the author where the checkout's Git knows a name; without one the runbooks are. */
async function author(run: Run): Promise<Record<string, string>> {
  const ask = async (name: string) => (await git(run, ROOT, ['config', name], { codes: [0, 1] })).stdout.trim()
  const [name, email] = await Promise.all([ask('user.name'), ask('user.email')])
  const committer = committerOf(run)
  return {
    GIT_AUTHOR_NAME: name || committer.GIT_COMMITTER_NAME,
    GIT_AUTHOR_EMAIL: email || committer.GIT_COMMITTER_EMAIL,
  }
}
