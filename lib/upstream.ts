// The makers' own manifests: which version, from where, and what they must be. They are kept in the site's folder under
// their hash, so that one that is there is the right one.
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import { Failure } from './failure.ts'
import { writeWhole } from './files.ts'
import { readYaml, validate } from './input.ts'
import type { Run } from './run.ts'
import { ROOT } from './site.ts'

const upstreamSchema = z.object({
  version: z.string(),
  url: z.url({ protocol: /^https$/ }),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
})

export type Upstream = z.infer<typeof upstreamSchema>

/** @returns what gitops/platform/upstream.yaml says of a program */
export function upstreamOf(name: 'argocd' | 'cert-manager'): Upstream {
  const file = join(ROOT, 'gitops', 'platform', 'upstream.yaml')
  const known = validate(z.record(z.string(), upstreamSchema), readYaml(readFileSync(file, 'utf8'), file), file)
  const upstream = known[name]
  if (!upstream) throw new Failure({ found: `${file} says nothing of ${name}` })
  return upstream
}

const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex')

/** @returns the manifest's text, fetched where it is not kept yet; throws a Failure where it is not what it must be */
export async function readUpstream({ site, signal }: Run, upstream: Upstream): Promise<string> {
  const file = join(site.directory, 'upstream', `${upstream.sha256}.yaml`)
  if (existsSync(file)) {
    const kept = readFileSync(file, 'utf8')
    if (sha256(kept) === upstream.sha256) return kept
  }
  const next = `curl -fsSL ${upstream.url} | sha256sum`
  const response = await fetch(upstream.url, { signal: AbortSignal.any([signal, AbortSignal.timeout(60_000)]) }).catch(
    (error: Error) => {
      throw new Failure({ found: `${upstream.url} could not be reached: ${error.message}`, next })
    },
  )
  const text = await response.text()
  if (!response.ok) throw new Failure({ found: `${upstream.url} answers ${response.status}`, next })
  if (sha256(text) !== upstream.sha256)
    throw new Failure({
      found: `${upstream.url} has the SHA-256 ${sha256(text)}`,
      expected: `${upstream.sha256}, as gitops/platform/upstream.yaml has it`,
      next,
    })
  writeWhole(file, text)
  return text
}
