// Whether a customer's instance, or Gitea, answers at its own address: through DNS, whatever is in front of it and its
// certificate, as its users reach it.
import * as z from 'zod'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { openResolver, requestAt } from './https.ts'
import { once, type Run } from './run.ts'

const versionSchema = z.object({ version: z.string() })
const healthSchema = z.object({ status: z.literal('pass') })

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** @param onVersion told the version that answers */
export const answersStep = (
  run: Run,
  host: string,
  { needs, onVersion = () => {} }: { needs: readonly AnyStep[]; onVersion?: (version: string) => void },
): Step =>
  addressStep(run, host, {
    ...{ needs, path: '/v1/version' },
    problem: (answer) => {
      const told = versionSchema.safeParse(answer)
      if (!told.success) return 'it answers 200, and not {"version": …}'
      onVersion(told.data.version)
      return undefined
    },
  })

/** Gitea itself, its database and its cache: https://docs.gitea.com/administration/config-cheat-sheet */
export const giteaAnswersStep = (run: Run, needs: readonly AnyStep[]): Step =>
  addressStep(run, `git.${run.site.domain}`, {
    ...{ needs, path: '/api/healthz' },
    problem: (answer) =>
      healthSchema.safeParse(answer).success ? undefined : 'it answers 200, and not that it is well',
  })

/** @param options.problem of what is answered; undefined where it is as it should be */
function addressStep(
  run: Run,
  host: string,
  options: { path: string; problem: (answer: unknown) => string | undefined; needs: readonly AnyStep[] },
): Step {
  const { path, needs } = options
  const resolver = once(() => openResolver(run))
  const problem = async (): Promise<string | undefined> => {
    let address: string | undefined
    try {
      address = (await (await resolver()).resolve4(host))[0]
    } catch (error) {
      return `${host} is not in DNS: ${(error as NodeJS.ErrnoException).code ?? (error as Error).message}`
    }
    const at = `https://${host}${path} at ${address}`
    try {
      const { status, body } = await requestAt(address ?? '', { host, path, signal: run.signal })
      if (status !== 200) return `${at}: it answers ${status}`
      const wrong = options.problem(parse(body))
      return wrong && `${at}: ${wrong}`
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      return `${at}: ${message || code}`
    }
  }
  return step<Drift>({
    title: `https://${host} answers`,
    needs,
    within: 60,
    check: async () => {
      const found = await problem()
      return found ? { lines: [found] } : undefined
    },
    // Nothing is left to do: whatever is in front of it may still be on its way.
    apply: async () => {},
  })
}
