// A kubeconfig with a token, as DigitalOcean's are.
import { stringify } from 'yaml'

/**
 * @param name of the cluster and of its context
 * @param ca in PEM
 * @returns the file's text
 */
export const kubeconfig = (
  name: string,
  { server, ca, token }: { server: string; ca: string; token: string },
): string =>
  stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name, cluster: { server, 'certificate-authority-data': Buffer.from(ca).toString('base64') } }],
    users: [{ name: `${name}-admin`, user: { token } }],
    contexts: [{ name, context: { cluster: name, user: `${name}-admin` } }],
    'current-context': name,
  })
