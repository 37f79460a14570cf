// How a new version reaches the customers: as a tag in the canaries' file of the chart first, and in everybody's when the
// canaries run it. One that does not come up there goes no further, and is taken back.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isScalar, parseDocument, Scalar } from 'yaml'
import * as z from 'zod'
import { refreshApplications } from './applications.ts'
import { type AnyStep, type Drift, type Step, step, type Work } from './converge.ts'
import type { Customer } from './customers.ts'
import { Failure, tell } from './failure.ts'
import { readYaml, validate } from './input.ts'
import { instanceStep } from './instance.ts'
import type { Platform } from './platform.ts'
import { fileStep, pushChange, type Repository } from './repository.ts'
import { ITS_TURN, slots } from './slots.ts'

/** Where each audience's tag is, in the repository. Canaries read both files, theirs over everybody's. */
export const TAG_FILES = { canaries: 'gitops/chart/canary.yaml', all: 'gitops/chart/values.yaml' } as const

type Audience = keyof typeof TAG_FILES

/** Customers that are waited for at once; Argo CD itself brings all of them to the new version side by side. */
const AT_ONCE = 6

/** @returns who gets a new version first, who after them, and who not at all since their own file has a tag */
export function audiences(customers: readonly Customer[]) {
  const isPinned = ({ image }: Customer) => image.tag !== undefined
  const following = customers.filter((one) => !isPinned(one))
  return {
    canaries: following.filter(({ rollout }) => rollout === 'canary'),
    following,
    pinned: customers.filter(isPinned),
  }
}

const tagSchema = z.looseObject({ image: z.looseObject({ tag: z.string().default('') }).prefault({}) })

/** @returns the tag that a file of the chart has; '' where it has none */
export const tagIn = (text: string, path: string): string => validate(tagSchema, readYaml(text, path), path).image.tag

/** @returns the file with that tag, and as it is in all else */
export function withTag(text: string, tag: string): string {
  const document = parseDocument(text)
  const found = document.getIn(['image', 'tag'], true)
  if (isScalar(found) && found.range) {
    const [start, end] = found.range
    // In quotes: a commit's hash may consist of digits.
    return `${text.slice(0, start)}${JSON.stringify(tag)}${text.slice(end)}`
  }
  const scalar = new Scalar(tag)
  scalar.type = Scalar.QUOTE_DOUBLE
  document.setIn(['image', 'tag'], scalar)
  return document.toString({ lineWidth: 0 })
}

/** The tag is what the audience runs, as far as the repository says so; then Argo CD is told to look. */
export function tagStep({ repository, kubernetes }: Platform, audience: Audience, tag: string, needs: AnyStep[]): Step {
  const path = TAG_FILES[audience]
  const file = fileStep(repository, {
    title: `${path} has ${tag}`,
    path,
    message: () => `Image ${tag}${audience === 'canaries' ? ' for the canaries' : ''} [skip ci]`,
    needs,
    check: async (text) => {
      if (text === undefined)
        throw new Failure({ found: `${path} is not in the repository`, next: './runbooks/bootstrap.mts' })
      return tagIn(text, path) === tag ? undefined : withTag(text, tag)
    },
  })
  return {
    ...file,
    apply: async (drift, work) => {
      await file.apply(drift, work)
      await refreshApplications(kubernetes)
    },
  }
}

const instanceOf = ({ kubernetes, repository }: Platform, { customer }: Customer, needs: readonly AnyStep[]) =>
  instanceStep(kubernetes, repository, customer, needs)

/** @returns a step for each canary: where it does not come up, all canaries get back what everybody has */
export function canarySteps(platform: Platform, canaries: readonly Customer[], tag: string, needs: AnyStep[]): Step[] {
  return canaries.map((canary) => {
    const instance = instanceOf(platform, canary, needs)
    return step<Drift>({
      ...instance,
      title: `the canary ${canary.customer} runs ${tag}`,
      apply: async (drift, work) => {
        try {
          await instance.apply(drift, work)
        } catch (error) {
          if (work.signal.aborted) throw error
          throw await takenBack(platform.repository, tag, error, work, () => instance.apply(drift, work))
        }
      },
    })
  })
}

/**
 * @param error why the canary does not run the tag
 * @param settle waits until the canary runs what the repository says then
 * @returns what to tell: the reason, and what has become of the canaries
 */
async function takenBack(
  repository: Repository,
  tag: string,
  error: unknown,
  work: Work,
  settle: () => Promise<void>,
): Promise<unknown> {
  const before = await takeBack(repository, tag, work)
  if (before === tag) return error
  const { found, expected } = tell(error)
  const became = await settle().then(
    () => `the canaries are back at ${before || 'no tag'}, and nobody else had ${tag}`,
    (again: unknown) => `the canaries were to go back to ${before || 'no tag'}, and: ${tell(again).found}`,
  )
  return new Failure({
    found: `${found}\n${became}`,
    ...(expected ? { expected } : {}),
    next: './runbooks/deploy.mts --tag TAG, with one in which that is mended',
  })
}

/** Gives the canaries back what everybody has. @returns that tag */
async function takeBack(repository: Repository, tag: string, work: Work): Promise<string> {
  let before = tag
  await pushChange(repository, TAG_FILES.canaries, work, async (directory) => {
    const read = (path: string) => readFileSync(join(directory, path), 'utf8')
    before = tagIn(read(TAG_FILES.all), TAG_FILES.all)
    const text = read(TAG_FILES.canaries)
    // Another canary may have done so, or somebody have pushed another tag.
    if (before === tag || tagIn(text, TAG_FILES.canaries) !== tag) return undefined
    writeFileSync(join(directory, TAG_FILES.canaries), withTag(text, before))
    return `The canaries are back at ${before || 'no tag'}: ${tag} does not come up [skip ci]`
  })
  return before
}

/** @returns a step for each customer, who all follow at the same time */
export function followerSteps(platform: Platform, following: readonly Customer[], tag: string, needs: AnyStep[]) {
  const inTurn = slots(AT_ONCE)
  return following.map((one): Step => {
    const instance = instanceOf(platform, one, needs)
    return {
      ...instance,
      title: `${one.customer} runs ${tag}`,
      apply: async (drift, work) => {
        work.waitingFor(ITS_TURN)
        await inTurn(() => instance.apply(drift, work))
      },
    }
  })
}
