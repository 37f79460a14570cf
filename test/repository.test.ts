// The site's repository, as a real bare one in a temporary folder: empty, behind, ahead, gone another way, pushed to
// meanwhile, not to be reached.
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { publishedStep, requireUpToDate } from '../lib/checkout.ts'
import type { Drift, Step, Work } from '../lib/converge.ts'
import { createExec } from '../lib/exec.ts'
import { Failure } from '../lib/failure.ts'
import { fileStep, openRepository } from '../lib/repository.ts'
import type { Run } from '../lib/run.ts'
import { ROOT } from '../lib/site.ts'

type Place = { folder: string; address: string; head: string }

const test = suite<Place>('repository')
test.before.each((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'repository-'))
  context.address = join(context.folder, 'site.git')
  context.head = inCheckout('rev-parse', 'HEAD')
  execFileSync('git', ['init', '--quiet', '--bare', '--initial-branch=main', context.address])
})
test.after.each(({ folder }) => rmSync(folder, { recursive: true }))

const PERSON = ['-c', 'user.name=x', '-c', 'user.email=x@example.org']
const inCheckout = (...args: string[]) => execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim()
const inSite = ({ address }: Place, ...args: string[]) =>
  execFileSync('git', ['--git-dir', address, ...PERSON, ...args], { encoding: 'utf8', stdio: 'pipe' }).trim()

/** Puts a commit of this checkout on the site's main branch. */
const publish = ({ address }: Place, commit: string) =>
  inCheckout('push', '--quiet', address, `${commit}:refs/heads/main`)

/** Somebody else commits a file to the site's main branch. @returns the commit */
function pushed(place: Place, path: string, text: string): string {
  const clone = mkdtempSync(join(place.folder, 'somebody-'))
  const git = (...args: string[]) => execFileSync('git', [...PERSON, ...args], { cwd: clone, stdio: 'pipe' })
  git('clone', '--quiet', place.address, '.')
  mkdirSync(dirname(join(clone, path)), { recursive: true })
  writeFileSync(join(clone, path), text)
  git('add', '--all')
  git('commit', '--quiet', '-m', 'somebody else’s')
  git('push', '--quiet', 'origin', 'HEAD:refs/heads/main')
  return inSite(place, 'rev-parse', 'main')
}

/** A run with a scratch folder of its own. It has the lock where `locked` says so. */
function runIn({ folder, address }: Place, { locked = true, home = folder } = {}): Run & { log: string[] } {
  const log: string[] = []
  const run = {
    runbook: 'test',
    site: { repository: address, domain: 'lunarfront.test' },
    exec: createExec({ environment: { ...process.env, HOME: home }, log: (line) => log.push(line) }),
    scratch: mkdtempSync(join(folder, 'scratch-')),
    locked: () => locked,
    log,
  }
  return run as unknown as Run & { log: string[] }
}

function working(): Work & { waits: string[] } {
  const waits: string[] = []
  return { signal: new AbortController().signal, waitingFor: (what) => waits.push(what), waits }
}

const check = async (step: Step) => (await step.check(working()))?.lines
const apply = (step: Step, work: Work = working()) => step.apply({ lines: [] } satisfies Drift, work)

const failure = async (attempt: Promise<unknown>): Promise<Failure> => {
  const error = await attempt.then(
    () => assert.unreachable('it did not fail'),
    (reason: unknown) => reason,
  )
  assert.instance(error, Failure)
  return error as Failure
}

// --- the checkout's commits ------------------------------------------------------------

test('an empty repository has no head, is told as such, and gets this checkout’s commits', async (place) => {
  const repository = openRepository(runIn(place))
  const published = publishedStep(repository)
  assert.is(await repository.head(), undefined)
  assert.ok((await failure(repository.clone())).notYet)
  assert.equal(await check(published), [`push ${place.head.slice(0, 12)} to main, which is empty`])
  await apply(published)
  assert.is(await check(published), undefined)
  assert.is(await repository.head(), place.head)
  assert.is(inSite(place, 'rev-parse', 'main'), place.head)
})

test('a repository that is behind gets what it lacks', async (place) => {
  const older = inCheckout('rev-parse', 'HEAD~1')
  publish(place, older)
  const published = publishedStep(openRepository(runIn(place)))
  assert.equal(await check(published), [`push ${place.head.slice(0, 12)} to main, which is at ${older.slice(0, 12)}`])
  await apply(published)
  assert.is(await check(published), undefined)
  assert.is(inSite(place, 'rev-parse', 'main'), place.head)
})

test('a repository that is ahead is right as it is', async (place) => {
  publish(place, place.head)
  const theirs = pushed(place, 'gitops/apps/customer-acme/values.yaml', 'customer: acme\n')
  assert.is(await check(publishedStep(openRepository(runIn(place)))), undefined)
  assert.is(inSite(place, 'rev-parse', 'main'), theirs)
})

test('a repository that has gone another way is for a person to merge', async (place) => {
  publish(place, inCheckout('rev-parse', 'HEAD~1'))
  const theirs = pushed(place, 'theirs', 'x')
  const { message, next } = await failure(check(publishedStep(openRepository(runIn(place)))))
  assert.is(
    message,
    `the repository is at ${theirs.slice(0, 12)} and this checkout at ${place.head.slice(0, 12)}, and each has commits that the other lacks`,
  )
  assert.is(next, `git pull --rebase ${place.address} main`)
})

test('a checkout has to have what the repository has, but for what others write all the time', async (place) => {
  publish(place, place.head)
  for (const path of ['apps/customer-acme/values.yaml', 'chart/values.yaml', 'chart/canary.yaml'])
    pushed(place, `gitops/${path}`, 'written: by others\n')
  await requireUpToDate(openRepository(runIn(place)))
  pushed(place, 'gitops/chart/Chart.yaml', 'written: by a person\n')
  const { message } = await failure(requireUpToDate(openRepository(runIn(place))))
  assert.is(message, 'this checkout lacks what the repository has: gitops/chart/Chart.yaml')
})

test('who pushed between the look and the push is not overwritten', async (place) => {
  publish(place, inCheckout('rev-parse', 'HEAD~1'))
  const published = publishedStep(openRepository(runIn(place)))
  assert.ok(await check(published))
  const theirs = pushed(place, 'theirs', 'x')
  assert.match((await failure(apply(published))).next ?? '', 'run it again')
  assert.is(inSite(place, 'rev-parse', 'main'), theirs)
})

// --- looking at it ---------------------------------------------------------------------

test('a repository that cannot be reached is told with how to try it by hand', async (place) => {
  rmSync(place.address, { recursive: true })
  const repository = openRepository(runIn(place))
  for (const attempt of [repository.head(), repository.clone(), check(publishedStep(repository))]) {
    const { message, next, notYet } = await failure(attempt)
    assert.match(message, place.address)
    assert.is(next, `git ls-remote ${place.address}, which has to work without a question`)
    assert.not.ok(notYet)
  }
})

test('a repository that could not be reached is asked again', async (place) => {
  const away = `${place.address}.away`
  execFileSync('mv', [place.address, away])
  for (const locked of [false, true]) {
    const repository = openRepository(runIn(place, { locked }))
    await failure(repository.head())
    execFileSync('mv', [away, place.address])
    assert.is(await repository.head(), undefined)
    execFileSync('mv', [place.address, away])
  }
})

test('without the lock it is looked at once; with it, anew each time', async (place) => {
  publish(place, place.head)
  let locked = false
  const run = runIn(place)
  const repository = openRepository({ ...run, locked: () => locked })
  assert.is(await repository.head(), place.head)
  const file = join(await repository.clone(), 'gitops', 'theirs')
  const first = pushed(place, 'gitops/theirs', 'x')
  assert.is(await repository.head(), place.head)
  assert.not.ok(existsSync(file))
  locked = true
  assert.is(await repository.head(), first)
  assert.ok(existsSync(file), 'the clone has not followed')
  const second = pushed(place, 'gitops/theirs', 'y')
  assert.is(await repository.head(), second)
})

test('several who look at once meet in one clone', async (place) => {
  publish(place, place.head)
  for (const locked of [false, true]) {
    const run = runIn(place, { locked })
    const repository = openRepository(run)
    const looks = await Promise.all([repository.head(), repository.clone(), repository.head(), repository.clone()])
    assert.equal([looks[0], looks[2]], [place.head, place.head])
    assert.is(looks[1], looks[3])
    assert.is(run.log.filter((line) => line.startsWith('$ git') && line.includes(' clone ')).length, 1)
  }
})

// --- a file in it ----------------------------------------------------------------------

const PATH = 'gitops/apps/customer-acme/values.yaml'
const fileIn = (run: Run, look: (text: string | undefined) => Promise<string | undefined>) =>
  fileStep(openRepository(run), {
    title: 'the file is there',
    path: PATH,
    message: () => 'Add customer acme',
    check: look,
  })
const wants = (wanted: string) => async (text: string | undefined) => (text === wanted ? undefined : wanted)

test('a file that is missing is committed and pushed, and then is right', async (place) => {
  publish(place, place.head)
  const step = fileIn(runIn(place), wants('customer: acme\n'))
  assert.equal(await check(step), [`commit and push ${PATH}`])
  await apply(step)
  assert.is(await check(step), undefined)
  assert.is(inSite(place, 'show', `main:${PATH}`), 'customer: acme')
  assert.is(
    inSite(place, 'log', '--format=%s, by %cn <%ce>', '-1', 'main'),
    'Add customer acme, by LunarFront runbooks <runbooks@lunarfront.test>',
  )
  assert.is(inSite(place, 'rev-parse', 'main~1'), place.head)
  assert.is(await check(fileIn(runIn(place), wants('customer: acme\n'))), undefined, 'another run sees it differently')
})

test('the check is shown the file as it is now', async (place) => {
  publish(place, place.head)
  pushed(place, PATH, 'theirs\n')
  const shown: (string | undefined)[] = []
  await check(
    fileIn(runIn(place), async (text) => {
      shown.push(text)
      return undefined
    }),
  )
  assert.equal(shown, ['theirs\n'])
})

test('nobody brings the clone up to date while files are committed, one after the other', async (place) => {
  publish(place, place.head)
  const repository = openRepository(runIn(place))
  const names = ['one', 'two', 'three']
  const steps = names.map((name) =>
    fileStep(repository, {
      title: name,
      path: `gitops/apps/${name}`,
      message: () => name,
      check: async (text) => (text === name ? undefined : name),
    }),
  )
  await Promise.all([...steps.map((one) => apply(one)), ...names.map(() => repository.head())])
  for (const name of names) assert.is(inSite(place, 'show', `main:gitops/apps/${name}`), name)
  assert.is(inSite(place, 'rev-list', '--count', `${place.head}..main`), '3')
})

test('a push in between is taken in, and told', async (place) => {
  publish(place, place.head)
  const step = fileIn(runIn(place), wants('customer: acme\n'))
  await check(step)
  const theirs = pushed(place, 'theirs', 'x')
  const work = working()
  await apply(step, work)
  assert.is(inSite(place, 'rev-parse', 'main~1'), theirs)
  assert.is(inSite(place, 'show', `main:${PATH}`), 'customer: acme')
  assert.equal(
    work.waits.map((wait) => wait.replace(/\(.*\)/, '')),
    ['the repository: [rejected] ; trying again'],
  )
})

test('a push in between that has done it already leaves nothing to commit', async (place) => {
  publish(place, place.head)
  const step = fileIn(runIn(place), wants('customer: acme\n'))
  await check(step)
  const theirs = pushed(place, PATH, 'customer: acme\n')
  await apply(step)
  assert.is(inSite(place, 'rev-parse', 'main'), theirs)
})

test('a push in between that changed the same file is looked at, not overwritten', async (place) => {
  publish(place, place.head)
  const step = fileIn(runIn(place), async (text) => {
    if (text && text !== 'ours\n') throw new Failure({ found: `somebody wrote ${text.trim()}` })
    return text ? undefined : 'ours\n'
  })
  await check(step)
  pushed(place, PATH, 'theirs\n')
  assert.is((await failure(apply(step))).message, 'somebody wrote theirs')
  assert.is(inSite(place, 'show', `main:${PATH}`), 'theirs')
})

test('a repository that refuses every push is told, with what it said', async (place) => {
  publish(place, place.head)
  const hook = join(place.address, 'hooks', 'pre-receive')
  writeFileSync(hook, '#!/bin/sh\nexit 1\n')
  chmodSync(hook, 0o755)
  const step = fileIn(runIn(place), wants('customer: acme\n'))
  await check(step)
  assert.match(
    (await failure(apply(step))).message,
    `the push of ${PATH} was refused 8 times: [remote rejected] (pre-receive hook declined)`,
  )
  assert.is(inSite(place, 'rev-parse', 'main'), place.head)
})

test('what the operator’s own Git is set to does not get in the way', async (place) => {
  publish(place, place.head)
  const home = join(place.folder, 'home')
  const hooks = join(home, 'hooks')
  mkdirSync(hooks, { recursive: true })
  for (const name of ['pre-commit', 'pre-push', 'commit-msg', 'post-checkout']) {
    writeFileSync(join(hooks, name), '#!/bin/sh\nexit 1\n')
    chmodSync(join(hooks, name), 0o755)
  }
  writeFileSync(
    join(home, '.gitconfig'),
    `[core]\n  hooksPath = ${hooks}\n[commit]\n  gpgSign = true\n[gpg]\n  program = false\n[safe]\n  directory = *\n`,
  )
  const step = fileIn(runIn(place, { home }), wants('customer: acme\n'))
  await apply(step)
  assert.is(inSite(place, 'show', `main:${PATH}`), 'customer: acme')
})

test.run()
