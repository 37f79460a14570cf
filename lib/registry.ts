// That Gitea's container registry takes an image and gives it back, as its users reach it: through DNS, the proxy and its
// certificate, signed in as Docker signs in (github.com/opencontainers/distribution-spec).
import { createHash } from 'node:crypto'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { Failure } from './failure.ts'
import { ADMINISTRATOR, type Gitea, imageOwner } from './gitea.ts'
import { openResolver, type Response, requestAt } from './https.ts'
import { once } from './run.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = 'application/vnd.oci.image.config.v1+json'

const digestOf = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`
const describe = (mediaType: string, text: string) => ({ mediaType, digest: digestOf(text), size: text.length })

/** An image without anything in it, and so the same every time. */
const EMPTY = JSON.stringify({
  architecture: 'amd64',
  os: 'linux',
  config: {},
  rootfs: { type: 'layers', diff_ids: [] },
})
const IMAGE = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config: describe(CONFIG, EMPTY), layers: [] })

/** The image stays there: each run pulls it, which is the proof. */
export function registryStep(gitea: Gitea, needs: readonly AnyStep[]): Step {
  const { run } = gitea.droplet
  const host = `registry.${run.site.domain}`
  const name = `${imageOwner(run.site)}/registry-check`
  const resolver = once(() => openResolver(run))

  const ask = async (method: string, path: string, headers: Record<string, string>, body?: string) => {
    const [address = ''] = await (await resolver()).resolve4(host)
    return requestAt(address, { method, host, path, headers, body, signal: run.signal })
  }
  const signIn = async (actions: string): Promise<Record<string, string>> => {
    const basic = Buffer.from(`${ADMINISTRATOR}:${(await gitea.token()).reveal()}`).toString('base64')
    const scope = encodeURIComponent(`repository:${name}:${actions}`)
    const { status, body } = await ask('GET', `/v2/token?service=container_registry&scope=${scope}`, {
      authorization: `Basic ${basic}`,
    })
    if (status !== 200) throw refused('the sign-in', status, body)
    return { authorization: `Bearer ${JSON.parse(body).token}` }
  }
  const refused = (what: string, status: number, body: string) =>
    new Failure({
      found: `${host} answers ${status} to ${what}: ${body.slice(0, 300)}`,
      next: `docker login ${host}`,
    })
  const pull = async () => {
    const auth = await signIn('pull')
    const [manifest, config] = await Promise.all([
      ask('GET', `/v2/${name}/manifests/1`, { ...auth, accept: MANIFEST }),
      ask('GET', `/v2/${name}/blobs/${digestOf(EMPTY)}`, auth),
    ])
    return [manifest, config]
  }
  return step<Drift>({
    title: `https://${host} takes and gives images`,
    needs,
    within: 30,
    check: async () => {
      const [manifest, config] = (await pull()) as [Response, Response]
      for (const { status, body } of [manifest, config])
        if (status !== 200 && status !== 404) throw refused('a pull', status, body)
      return manifest.body === IMAGE && config.body === EMPTY ? undefined : { lines: [`push ${host}/${name}:1`] }
    },
    apply: async () => {
      const auth = await signIn('pull,push')
      const blob = `/v2/${name}/blobs/uploads/?digest=${digestOf(EMPTY)}`
      const pushes = [
        () => ask('POST', blob, { ...auth, 'content-type': 'application/octet-stream' }, EMPTY),
        () => ask('PUT', `/v2/${name}/manifests/1`, { ...auth, 'content-type': MANIFEST }, IMAGE),
      ]
      for (const push of pushes) {
        const { status, body } = await push()
        if (status !== 201) throw refused('a push', status, body)
      }
    },
  })
}
