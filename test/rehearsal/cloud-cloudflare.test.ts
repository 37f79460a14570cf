// Cloudflare's API: who may call it, what it refuses and in which words, and what becomes of a record.
import { Resolver } from 'node:dns/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Answer, cloudFor, cloudflare } from './cloud.ts'

const test = suite('Cloudflare API')
const subject = cloudFor(test)
const api = (method: string, path: string, body?: unknown) => cloudflare(subject, method, path, body)
const records = () => `/zones/${subject.cloud.cloudflare.zone_id}/dns_records`

const refused = ({ status, body }: Answer, expectedStatus: number, code: number) => {
  assert.equal([status, body.success, body.result], [expectedStatus, false, null], JSON.stringify(body))
  assert.is(body.errors[0].code, code)
  assert.ok(body.errors[0].message.length > 0)
}
const a = (name: string, content = '203.0.113.9') => ({ name, type: 'A', content, ttl: 300, proxied: false })

test('a wrong token, one of no token’s form, and none', async () => {
  const { url, zone_id } = subject.cloud.cloudflare
  const ask = async (path: string, authorization?: string) => {
    const response = await fetch(url + path, authorization === undefined ? {} : { headers: { authorization } })
    return { status: response.status, headers: response.headers, body: await response.json() }
  }
  const wrong = `Bearer ${'x'.repeat(40)}`
  refused(await ask('/user/tokens/verify', wrong), 401, 1000)
  refused(await ask(`/zones/${zone_id}`, wrong), 403, 9109)
  refused(await ask(`/zones/${zone_id}`, 'Bearer short'), 400, 6003)
  refused(await ask(`/zones/${zone_id}`), 400, 6003)
  assert.is((await api('GET', '/user/tokens/verify')).body.result.status, 'active')
})

test('another zone is a permission error, not an absence', async () => {
  const other = 'f'.repeat(32)
  refused(await api('GET', `/zones/${other}/dns_records`), 403, 10000)
  refused(await api('GET', `/zones/${other}`), 403, 9109)
  refused(await api('GET', '/zones/none/dns_records'), 404, 7003)
})

test('the zone, by id and by name', async () => {
  const { zone_id, domain } = subject.cloud.cloudflare
  const { result } = (await api('GET', `/zones/${zone_id}`)).body
  assert.equal([result.name, result.status], [domain, 'active'])
  assert.equal((await api('GET', `/zones?name=${domain}`)).body.result[0].id, zone_id)
  assert.equal((await api('GET', '/zones?name=other.test')).body.result, [])
})

test('a record is created under its full name, changed, and gone', async () => {
  const created = await api('POST', records(), a('Git'))
  assert.is(created.status, 200)
  const record = created.body.result
  assert.equal([record.name, record.proxiable, record.ttl], ['git.lunarfront.test', true, 300])
  const path = `${records()}/${record.id}`
  const put = await api('PUT', path, { ...a('git.lunarfront.test', '203.0.113.10'), comment: 'moved' })
  assert.equal([put.body.result.content, put.body.result.comment], ['203.0.113.10', 'moved'])
  assert.ok(put.body.result.comment_modified_on)
  const patched = await api('PATCH', path, { ttl: 600 })
  assert.equal(
    [patched.body.result.ttl, patched.body.result.content, patched.body.result.comment],
    [600, '203.0.113.10', 'moved'],
  )
  assert.is((await api('GET', path)).body.result.created_on, record.created_on)
  assert.equal((await api('DELETE', path)).body.result, { id: record.id })
  refused(await api('GET', path), 404, 81044)
  refused(await api('DELETE', path), 404, 81044)
})

test('the name server answers with what the API has just said, and no longer with what it has taken back', async () => {
  const { host, port } = subject.cloud.dns
  const resolver = new Resolver({ timeout: 2_000, tries: 1 })
  resolver.setServers([`${host}:${port}`])
  const addresses = () => resolver.resolve4('now.app.lunarfront.test').catch(({ code }) => code)
  assert.is(await addresses(), 'ENOTFOUND')
  const { id } = (await api('POST', records(), a('now.app'))).body.result
  assert.equal(await addresses(), ['203.0.113.9'])
  await api('PATCH', `${records()}/${id}`, { content: '203.0.113.10' })
  assert.equal(await addresses(), ['203.0.113.10'])
  const challenge = { name: '_acme-challenge.now.app', type: 'TXT', content: 'proof', ttl: 120 }
  const { id: proof } = (await api('POST', records(), challenge)).body.result
  assert.equal(await resolver.resolveTxt('_acme-challenge.now.app.lunarfront.test'), [['proof']])
  await api('DELETE', `${records()}/${id}`)
  assert.is(await addresses(), 'ENODATA', 'there is still something below it')
  await api('DELETE', `${records()}/${proof}`)
  assert.is(await addresses(), 'ENOTFOUND')
})

test('records that cannot be', async () => {
  const { id } = (await api('POST', records(), a('taken'))).body.result
  refused(await api('POST', records(), a('taken')), 400, 81058)
  refused(await api('POST', records(), { ...a('taken'), type: 'CNAME', content: 'lb.lunarfront.test' }), 400, 81053)
  assert.is((await api('POST', records(), a('taken', '203.0.113.11'))).status, 200)
  refused(await api('POST', records(), a('bad', 'not-an-address')), 400, 9005)
  refused(await api('POST', records(), a('bad', '203.0.113.999')), 400, 9005)
  refused(await api('POST', records(), { ...a('bad'), type: 'AAAA' }), 400, 9006)
  refused(await api('POST', records(), { ...a('bad'), type: 'CNAME', content: 'lb..lunarfront.test' }), 400, 9007)
  refused(await api('POST', records(), a('sp ace')), 400, 9000)
  refused(await api('POST', records(), { ...a('short'), ttl: 5 }), 400, 9021)
  refused(await api('POST', records(), { type: 'A' }), 400, 9207)
  refused(await api('POST', records(), { ...a('self'), type: 'CNAME', content: 'self.lunarfront.test' }), 400, 9039)
  assert.is((await api('POST', records(), { ...a('proxied'), proxied: true })).body.result.ttl, 1)
  await api('DELETE', `${records()}/${id}`)
})

test('a listing is filtered by name and type, and comes in pages', async () => {
  for (let n = 0; n < 7; n++) await api('POST', records(), a(`page${n}.app`))
  const cname = { name: 'acme.app', type: 'CNAME', content: 'lb.app.lunarfront.test', ttl: 300 }
  await api('POST', records(), cname)
  const names = async (query: string) =>
    (await api('GET', `${records()}?${query}`)).body.result.map(({ name }: { name: string }) => name)
  assert.equal(await names('type=CNAME'), ['acme.app.lunarfront.test'])
  assert.equal(await names('name=page3.app.lunarfront.test'), ['page3.app.lunarfront.test'])
  assert.equal(await names('name.exact=page3.app'), [])
  assert.is((await names('name.contains=page')).length, 7)
  const { body } = await api('GET', `${records()}?name.contains=page&per_page=3&page=3`)
  assert.is(body.result.length, 1)
  assert.equal(body.result_info, { page: 3, per_page: 3, count: 1, total_count: 7, total_pages: 3 })
})

test.run()
