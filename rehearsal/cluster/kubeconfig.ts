// A kubeconfig with a token, as DigitalOcean's are.
import { stringify } from 'yaml'

/** @returns the file's text */
export const kubeconfig = ({ server, ca, token }: { server: string; ca: string; token: string }): string =>
  stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      { name: 'rehearsal', cluster: { server, 'certificate-authority-data': Buffer.from(ca).toString('base64') } },
    ],
    users: [{ name: 'admin', user: { token } }],
    contexts: [{ name: 'rehearsal', context: { cluster: 'rehearsal', user: 'admin' } }],
    'current-context': 'rehearsal',
  })
