// digitalocean_database_db, _database_user and _database_firewall, and the data source digitalocean_database_ca
import { unlessGone } from '../rest.ts'
import { computed, listBlocks, optional, optionalComputed, type Row, required, setBlocks, string } from '../schema.ts'
import { type Client, dataSource, halves, resource, uniqueId } from './client.ts'

export const databaseDb = resource({
  version: 0,
  fields: {
    id: optionalComputed(string),
    cluster_id: required(string, { replace: true }),
    name: required(string, { replace: true }),
  },
  async create({ cluster_id, name }, { api }) {
    await api('POST', `/databases/${cluster_id}/dbs`, { name })
    return { id: `${cluster_id}/database/${name}` }
  },
  read: ({ cluster_id, name }, { api }) =>
    unlessGone(async () => {
      await api('GET', `/databases/${cluster_id}/dbs/${name}`)
      return {}
    }),
  async remove({ cluster_id, name }, { api }) {
    await api('DELETE', `/databases/${cluster_id}/dbs/${name}`)
  },
  async adopt(id) {
    const [cluster_id, name] = halves(id, 'cluster_id,name')
    return { id: `${cluster_id}/database/${name}`, cluster_id, name }
  },
})

type User = { name: string; role: string; password: string }

/** The API has no password of a user that was made in SQL; the state keeps the one it has. */
const userRow = ({ role, password }: User) => ({ role: role || 'normal', ...(password ? { password } : {}) })

export const databaseUser = resource({
  version: 0,
  fields: {
    id: optionalComputed(string),
    cluster_id: required(string, { replace: true }),
    name: required(string, { replace: true }),
    mysql_auth_plugin: optional(string),
    settings: listBlocks({
      acl: listBlocks({ id: computed(string), topic: required(string), permission: required(string) }),
      opensearch_acl: listBlocks({ index: required(string), permission: required(string) }),
    }),
    role: computed(string),
    password: computed(string, { sensitive: true }),
    access_cert: computed(string, { sensitive: true }),
    access_key: computed(string, { sensitive: true }),
  },
  async create({ cluster_id, name }, { api }) {
    const { user } = await api<{ user: User }>('POST', `/databases/${cluster_id}/users`, { name })
    return { id: `${cluster_id}/user/${name}`, ...userRow(user) }
  },
  read: ({ cluster_id, name }, { api }) =>
    unlessGone(async () => userRow((await api<{ user: User }>('GET', `/databases/${cluster_id}/users/${name}`)).user)),
  // What could change is for engines that the platform has not.
  update: async (_prior, planned) => planned,
  async remove({ cluster_id, name }, { api }) {
    await api('DELETE', `/databases/${cluster_id}/users/${name}`)
  },
  async adopt(id) {
    const [cluster_id, name] = halves(id, 'cluster_id,name')
    return { id: `${cluster_id}/user/${name}`, cluster_id, name }
  },
})

const firewallFields = {
  id: optionalComputed(string),
  cluster_id: required(string, { replace: true }),
  rule: setBlocks(
    { uuid: computed(string), type: required(string), value: required(string), created_at: computed(string) },
    { min: 1 },
  ),
}

async function readRules({ api }: Client, cluster_id: string) {
  const { rules } = await api<{ rules: { uuid: string; type: string; value: string; created_at: string }[] }>(
    'GET',
    `/databases/${cluster_id}/firewall`,
  )
  return { rule: rules.map(({ uuid, type, value, created_at }) => ({ uuid, type, value, created_at })) }
}

async function writeRules(client: Client, { cluster_id, rule }: Row<typeof firewallFields>) {
  const rules = rule.map(({ uuid, type, value }) => ({ uuid: uuid ?? '', type, value }))
  await client.api('PUT', `/databases/${cluster_id}/firewall`, { rules })
  return readRules(client, cluster_id)
}

export const databaseFirewall = resource({
  version: 0,
  fields: firewallFields,
  create: async (planned, client) => ({
    id: uniqueId(`${planned.cluster_id}-`),
    ...(await writeRules(client, planned)),
  }),
  read: ({ cluster_id }, client) => unlessGone(() => readRules(client, cluster_id)),
  update: (_prior, planned, client) => writeRules(client, planned),
  async remove({ cluster_id }, { api }) {
    await api('PUT', `/databases/${cluster_id}/firewall`, { rules: [] })
  },
  adopt: async (cluster_id) => ({ id: uniqueId(`${cluster_id}-`), cluster_id }),
})

export const databaseCa = dataSource({
  fields: { id: optionalComputed(string), cluster_id: required(string), certificate: computed(string) },
  async read({ cluster_id }, { api }) {
    const { ca } = await api<{ ca: { certificate: string } }>('GET', `/databases/${cluster_id}/ca`)
    return { id: cluster_id, certificate: Buffer.from(ca.certificate, 'base64').toString('utf8') }
  },
})
