// The credentials and addresses of the providers, from the environment variables that the providers' own tools read.
import { misuse } from './failure.ts'
import { Secret } from './secret.ts'

export type Credentials = {
  digitalocean: { token: Secret; url: string }
  cloudflare: { token: Secret; url: string }
  spaces: { accessKeyId: Secret; secretAccessKey: Secret; endpoint: string }
}

/**
 * @param environment variables of the process
 * @param region of Spaces, which stands in its address
 * @returns the credentials; throws a misuse that names every variable that is missing or malformed
 */
export function readCredentials(environment: Record<string, string | undefined>, region: string): Credentials {
  const problems: string[] = []
  const secret = (name: string) => {
    const value = environment[name] ?? ''
    if (!value) problems.push(`${name} is not set`)
    // A pasted line break or quote would otherwise turn up as an odd answer from the provider.
    else if (!/^[\x21-\x7e]{8,}$/.test(value) || /['"]/.test(value))
      problems.push(`${name} does not look like a credential: 8 or more printable characters, no spaces or quotes`)
    return new Secret(value)
  }
  const address = (name: string, usual: string) => {
    const value = (environment[name] || usual).replaceAll('{{.Region}}', region).replace(/\/+$/, '')
    if (!URL.canParse(value) || !/^https?:$/.test(new URL(value).protocol))
      problems.push(`${name} is not an http or https address: ${value}`)
    return value
  }
  const credentials = {
    digitalocean: {
      token: secret('DIGITALOCEAN_TOKEN'),
      url: address('DIGITALOCEAN_API_URL', 'https://api.digitalocean.com'),
    },
    cloudflare: {
      token: secret('CLOUDFLARE_API_TOKEN'),
      url: address('CLOUDFLARE_BASE_URL', 'https://api.cloudflare.com/client/v4'),
    },
    spaces: {
      accessKeyId: secret('SPACES_ACCESS_KEY_ID'),
      secretAccessKey: secret('SPACES_SECRET_ACCESS_KEY'),
      endpoint: address('SPACES_ENDPOINT_URL', `https://${region}.digitaloceanspaces.com`),
    },
  }
  if (problems.length > 0)
    throw misuse({
      found: problems.join('; '),
      next: 'set them in this shell: README.md, "A real account", says where each is made',
    })
  return credentials
}
