// The credentials and addresses of the providers, from the environment variables that the providers' own tools read.
import { misuse } from './failure.ts'
import { Secret } from './secret.ts'

/** Where the platform's Postgres is known from a file, neither provider need be asked: then to ask one is a misuse. */
export type Credentials = {
  readonly digitalocean: { token: Secret; url: string }
  readonly cloudflare: { token: Secret; url: string }
  spaces: { accessKeyId: Secret; secretAccessKey: Secret; endpoint: string }
}

/** Names a file with what `terraform output -json postgres` prints, for where there is no Terraform: a pod. */
export const POSTGRES_FILE = 'LUNARFRONT_POSTGRES'

/** Names one with what it prints of `gitea_postgres`, for a container on Gitea's droplet. */
export const GITEA_POSTGRES_FILE = 'LUNARFRONT_GITEA_POSTGRES'

const wrong = (problems: readonly string[]) =>
  misuse({
    found: problems.join('; '),
    next: 'set them in this shell: README.md, "A real account", says where each is made',
  })

/**
 * @param environment variables of the process
 * @param region of Spaces, which stands in its address
 * @returns the credentials; throws a misuse that names every variable that is missing or malformed. Where Postgres is
 *   known from a file, what is missing of a provider's is a misuse only when it is read
 */
export function readCredentials(environment: Record<string, string | undefined>, region: string): Credentials {
  const problems: string[] = []
  const lazily = Boolean(environment[POSTGRES_FILE] || environment[GITEA_POSTGRES_FILE])
  const secret = (name: string) => {
    const value = environment[name] ?? ''
    if (!value) problems.push(`${name} is not set`)
    // A pasted line break or quote would otherwise turn up as an odd answer from the provider.
    else if (!/^[\x21-\x7e]{8,}$/.test(value) || /['"]/.test(value))
      problems.push(`${name} does not look like a credential: 8 or more printable characters, no spaces or quotes`)
    return new Secret(value)
  }
  /** Of a provider that may never be asked. */
  const token = (name: string) => (lazily && !environment[name] ? undefined : secret(name))
  const address = (name: string, usual: string) => {
    const value = (environment[name] || usual).replaceAll('{{.Region}}', region).replace(/\/+$/, '')
    if (!URL.canParse(value) || !/^https?:$/.test(new URL(value).protocol))
      problems.push(`${name} is not an http or https address: ${value}`)
    return value
  }
  const tokens = {
    digitalocean: token('DIGITALOCEAN_TOKEN'),
    cloudflare: token('CLOUDFLARE_API_TOKEN'),
  }
  const urls = {
    digitalocean: address('DIGITALOCEAN_API_URL', 'https://api.digitalocean.com'),
    cloudflare: address('CLOUDFLARE_BASE_URL', 'https://api.cloudflare.com/client/v4'),
  }
  const spaces = {
    accessKeyId: secret('SPACES_ACCESS_KEY_ID'),
    secretAccessKey: secret('SPACES_SECRET_ACCESS_KEY'),
    endpoint: address('SPACES_ENDPOINT_URL', `https://${region}.digitaloceanspaces.com`),
  }
  if (problems.length > 0) throw wrong(problems)
  const provider = (name: keyof typeof tokens, variable: string) => {
    const found = tokens[name]
    if (!found) throw wrong([`${variable} is not set`])
    return { token: found, url: urls[name] }
  }
  return {
    get digitalocean() {
      return provider('digitalocean', 'DIGITALOCEAN_TOKEN')
    },
    get cloudflare() {
      return provider('cloudflare', 'CLOUDFLARE_API_TOKEN')
    },
    spaces,
  }
}
