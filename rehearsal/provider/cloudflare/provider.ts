// The stand-in for the provider cloudflare/cloudflare.
import type { CloudAddresses } from '../../cloud/cloud.ts'
import type { Provider } from '../resource.ts'
import { optional, string } from '../schema.ts'
import { type Client, dnsRecord } from './dns-record.ts'

const explain = (body: unknown) =>
  (body as { errors?: { code: number; message: string }[] }).errors
    ?.map(({ code, message }) => `${message} (${code})`)
    .join('; ')

/** The token comes from where the real provider takes it; the address is always the rehearsed cloud's. */
export const cloudflareProvider = ({ cloudflare }: Pick<CloudAddresses, 'cloudflare'>): Provider<Client> => ({
  source: 'cloudflare/cloudflare',
  legacy: false,
  fields: {
    api_key: optional(string, { sensitive: true }),
    api_token: optional(string, { sensitive: true }),
    api_user_service_key: optional(string, { sensitive: true }),
    base_url: optional(string),
    email: optional(string),
    user_agent_operator_suffix: optional(string),
  },
  configure: (config, environment, stopped) => {
    const known = environment ?? { CLOUDFLARE_API_TOKEN: cloudflare.token }
    const token = String(config.api_token ?? known.CLOUDFLARE_API_TOKEN ?? '')
    return { url: cloudflare.url, token, explain, stopped }
  },
  resources: { cloudflare_dns_record: dnsRecord },
  dataSources: {},
})
