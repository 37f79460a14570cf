// The stand-in for the provider digitalocean/digitalocean.
import type { CloudAddresses } from '../../cloud/cloud.ts'
import type { Provider } from '../resource.ts'
import { number, optional, string } from '../schema.ts'
import { type Client, clientFor } from './client.ts'
import { databaseCluster } from './database-cluster.ts'
import { databaseCa, databaseDb, databaseFirewall, databaseUser } from './database-content.ts'
import { droplet } from './droplet.ts'
import { firewall } from './firewall.ts'
import { kubernetesCluster, kubernetesVersions } from './kubernetes.ts'
import { project, projectResources } from './project.ts'
import { reservedIp, reservedIpAssignment } from './reserved-ip.ts'
import { spacesBucket } from './spaces-bucket.ts'
import { sshKey } from './ssh-key.ts'
import { vpc } from './vpc.ts'

const explain = (body: unknown) => (body as { message?: string }).message

/**
 * Credentials come from where the real provider takes them; the addresses are always the rehearsed cloud's,
 * whatever the configuration says, so that nothing can reach a real account.
 */
export const digitalOceanProvider = ({
  digitalocean,
  spaces,
}: Pick<CloudAddresses, 'digitalocean' | 'spaces'>): Provider<Client> => ({
  source: 'digitalocean/digitalocean',
  legacy: true,
  fields: {
    token: optional(string),
    api_endpoint: optional(string),
    spaces_endpoint: optional(string),
    spaces_access_id: optional(string),
    spaces_secret_key: optional(string),
    requests_per_second: optional(number),
    http_retry_max: optional(number),
    http_retry_wait_min: optional(number),
    http_retry_wait_max: optional(number),
  },
  configure(config, environment, stopped, gone) {
    const known = environment ?? {
      DIGITALOCEAN_TOKEN: digitalocean.token,
      SPACES_ACCESS_KEY_ID: spaces.access_key_id,
      SPACES_SECRET_ACCESS_KEY: spaces.secret_access_key,
    }
    const setting = (configured: unknown, ...names: string[]) =>
      String(configured ?? names.map((name) => known[name]).find(Boolean) ?? '')
    return clientFor(
      {
        url: digitalocean.url,
        token: setting(config.token, 'DIGITALOCEAN_TOKEN', 'DIGITALOCEAN_ACCESS_TOKEN'),
        explain,
        stopped,
      },
      {
        url: spaces.url,
        region: spaces.region,
        access_key_id: setting(config.spaces_access_id, 'SPACES_ACCESS_KEY_ID'),
        secret_access_key: setting(config.spaces_secret_key, 'SPACES_SECRET_ACCESS_KEY'),
      },
      gone,
    )
  },
  resources: {
    digitalocean_vpc: vpc,
    digitalocean_ssh_key: sshKey,
    digitalocean_droplet: droplet,
    digitalocean_reserved_ip: reservedIp,
    digitalocean_reserved_ip_assignment: reservedIpAssignment,
    digitalocean_firewall: firewall,
    digitalocean_database_cluster: databaseCluster,
    digitalocean_database_db: databaseDb,
    digitalocean_database_user: databaseUser,
    digitalocean_database_firewall: databaseFirewall,
    digitalocean_kubernetes_cluster: kubernetesCluster,
    digitalocean_project: project,
    digitalocean_project_resources: projectResources,
    digitalocean_spaces_bucket: spacesBucket,
  },
  dataSources: {
    digitalocean_database_ca: databaseCa,
    digitalocean_kubernetes_versions: kubernetesVersions,
  },
})
