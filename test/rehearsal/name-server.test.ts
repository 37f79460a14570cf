// The zone's name server: as Node's resolver sees it, and byte by byte where a resolver does not show the difference.
import { createSocket } from 'node:dgram'
import { Resolver } from 'node:dns/promises'
import { once } from 'node:events'
import { connect } from 'node:net'
import { AUTHENTIC_DATA, type DecodedPacket, decode, encode, type Packet, streamEncode } from 'dns-packet'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type NameServer, startNameServer } from '../../rehearsal/cloud/cloudflare/name-server.ts'
import { RCODE, type Zone } from '../../rehearsal/cloud/cloudflare/zone-answers.ts'

type Context = { server: NameServer; resolver: Resolver }
const test = suite<Context>('name server')

const record = (type: string, name: string, content: string, more: { ttl?: number; proxied?: boolean } = {}) =>
  [
    `${type} ${name} ${content}`,
    { type, name: `${name}.lunar.test`, content, ttl: 300, proxied: false, ...more },
  ] as const
const LONG = 'x'.repeat(255) + 'y'.repeat(255) + 'z'.repeat(90)
const records = new Map([
  record('A', 'git', '203.0.113.9', { ttl: 600 }),
  record('A', 'git', '203.0.113.10', { ttl: 1 }),
  record('AAAA', 'git', '2001:db8::9'),
  record('A', 'git-ssh', '203.0.113.9'),
  record('A', 'lb.app', '203.0.113.20'),
  record('CNAME', 'acme.app', 'lb.app.lunar.test'),
  record('CNAME', 'shop', 'Acme.App.lunar.test'),
  record('CNAME', 'away', 'lunar.example.com'),
  record('CNAME', 'dangling', 'gone.lunar.test'),
  record('CNAME', 'ring', 'ring2.lunar.test'),
  record('CNAME', 'ring2', 'ring.lunar.test'),
  record('A', '*.wild', '203.0.113.30'),
  record('TXT', '*.wild', 'any of them'),
  record('TXT', 'deep.below.wild', 'this one'),
  record('CNAME', '*.preview', 'lb.app.lunar.test'),
  record('TXT', '_acme-challenge.app', 'first'),
  record('TXT', '_acme-challenge.app', '"second"'),
  record('TXT', 'long', LONG),
  record('TXT', 'quoted', '"one \\"part\\"" "and another"'),
  ...Array.from({ length: 12 }, (_, n) => record('TXT', 'many', `${n} `.padEnd(200, 'm'))),
  record('A', 'front', '203.0.113.40', { ttl: 1, proxied: true }),
  record('CNAME', 'front-alias', 'lb.app.lunar.test', { ttl: 1, proxied: true }),
  record('MX', 'mail', 'mx.example.com'),
])
const hosts = new Map([['git-ssh.lunar.test', ['10.88.0.1', '2001:db8::1']]])
const zone: Zone = { name: 'lunar.test', records, hosts }

test.before(async (context) => {
  context.server = await startNameServer(zone)
  context.resolver = new Resolver({ timeout: 2_000, tries: 1 })
  context.resolver.setServers([`${context.server.host}:${context.server.port}`])
})
test.after(({ server }) => server.close())

/** @returns the code of the error that the resolver gives */
const codeOf = (question: Promise<unknown>) =>
  question.then(
    (found) => assert.unreachable(`found ${JSON.stringify(found)}`),
    (error: NodeJS.ErrnoException) => error.code,
  )

/** Sends bytes in a datagram; undefined when nothing comes back. */
async function send({ port, host }: NameServer, bytes: Buffer): Promise<Buffer | undefined> {
  const socket = createSocket('udp4')
  try {
    socket.send(bytes, port, host)
    const [answer] = await once(socket, 'message', { signal: AbortSignal.timeout(bytes.length < 12 ? 200 : 2_000) })
    return answer
  } catch {
    return undefined
  } finally {
    socket.close()
  }
}

const query = (name: string, type: string, more: Packet = {}) =>
  encode({ type: 'query', id: 4711, ...more, questions: [{ name, type: type as 'A', class: 'IN' }] })
const rcode = ({ flags = 0 }: DecodedPacket) => flags & 15
async function ask(server: NameServer, bytes: Buffer): Promise<DecodedPacket & { size: number }> {
  const answer = await send(server, bytes)
  assert.ok(answer, 'no answer')
  return { ...decode(answer), size: answer.length }
}
const edns = (udpPayloadSize: number, ednsVersion = 0): Packet => ({
  additionals: [
    { type: 'OPT', name: '.', udpPayloadSize, ednsVersion, extendedRcode: 0, flags: 0, flag_do: false, options: [] },
  ],
})

test('addresses, with their time to live', async ({ resolver }) => {
  assert.equal(await resolver.resolve4('git.lunar.test', { ttl: true }), [
    { address: '203.0.113.9', ttl: 600 },
    { address: '203.0.113.10', ttl: 300 },
  ])
  assert.equal(await resolver.resolve6('git.lunar.test'), ['2001:db8::9'])
  assert.equal(await resolver.resolve4('GIT.Lunar.TEST'), ['203.0.113.9', '203.0.113.10'])
})

test('no such name is told from nothing of that type, both with the zone’s SOA', async ({ server, resolver }) => {
  assert.is(await codeOf(resolver.resolve4('none.lunar.test')), 'ENOTFOUND')
  assert.is(await codeOf(resolver.resolve6('lb.app.lunar.test')), 'ENODATA')
  assert.is(await codeOf(resolver.resolve4('app.lunar.test')), 'ENODATA', 'between names that exist')
  assert.is(await codeOf(resolver.resolveMx('mail.lunar.test')), 'ENODATA', 'a type that is only kept')
  for (const [name, expected] of [
    ['none.lunar.test', RCODE.noSuchName],
    ['app.lunar.test', RCODE.noError],
  ] as const) {
    const packet = await ask(server, query(name, 'A'))
    assert.equal([rcode(packet), packet.flag_aa, packet.answers], [expected, true, []])
    const [soa] = packet.authorities ?? []
    assert.equal([soa?.name, soa?.type, soa?.type === 'SOA' && soa.ttl], ['lunar.test', 'SOA', 1_800])
    assert.is(soa?.type === 'SOA' && soa.data.minimum, 1_800)
  }
})

test('the zone itself', async ({ resolver }) => {
  assert.equal(await resolver.resolveNs('lunar.test'), ['ada.ns.cloudflare.test', 'bob.ns.cloudflare.test'])
  const { nsname, hostmaster, minttl, serial } = await resolver.resolveSoa('lunar.test')
  assert.equal([nsname, hostmaster, minttl], ['ada.ns.cloudflare.test', 'dns.cloudflare.test', 1_800])
  assert.ok(serial > 1_700_000_000)
  assert.is(await codeOf(resolver.resolve4('lunar.test')), 'ENODATA')
})

test('an alias is followed as far as the zone goes', async ({ server, resolver }) => {
  assert.equal(await resolver.resolve4('shop.lunar.test'), ['203.0.113.20'])
  assert.equal(await resolver.resolveCname('shop.lunar.test'), ['Acme.App.lunar.test'])
  const chain = await ask(server, query('shop.lunar.test', 'A'))
  assert.equal(
    chain.answers?.map(({ name, type }) => `${name} ${type}`),
    ['shop.lunar.test CNAME', 'Acme.App.lunar.test CNAME', 'lb.app.lunar.test A'],
  )
  assert.equal(chain.authorities, [])
  assert.equal(await resolver.resolve6('shop.lunar.test'), [], 'how Node says an alias of something without this type')
  assert.is(await codeOf(resolver.resolve4('dangling.lunar.test')), 'ENOTFOUND')
  const dangling = await ask(server, query('dangling.lunar.test', 'A'))
  assert.equal([dangling.answers?.length, dangling.authorities?.[0]?.type], [1, 'SOA'])
  const away = await ask(server, query('away.lunar.test', 'A'))
  assert.equal([rcode(away), away.answers?.length, away.authorities], [RCODE.noError, 1, []])
  const ring = await ask(server, query('ring.lunar.test', 'A'))
  assert.equal([rcode(ring), ring.answers?.length], [RCODE.noError, 2])
})

test('a wildcard stands for what does not exist, at any depth, and for nothing else', async ({ server, resolver }) => {
  assert.equal(await resolver.resolve4('one.wild.lunar.test'), ['203.0.113.30'])
  assert.equal(await resolver.resolve4('two.one.wild.lunar.test'), ['203.0.113.30'])
  assert.equal((await ask(server, query('One.Wild.lunar.test', 'A'))).answers?.[0]?.name, 'One.Wild.lunar.test')
  assert.is(await codeOf(resolver.resolve6('one.wild.lunar.test')), 'ENODATA')
  assert.is(await codeOf(resolver.resolve4('wild.lunar.test')), 'ENODATA', 'the name above it')
  assert.equal(await resolver.resolveTxt('deep.below.wild.lunar.test'), [['this one']])
  assert.is(await codeOf(resolver.resolve4('deep.below.wild.lunar.test')), 'ENODATA')
  assert.is(await codeOf(resolver.resolve4('below.wild.lunar.test')), 'ENODATA', 'between names that exist')
  assert.is(await codeOf(resolver.resolve4('other.below.wild.lunar.test')), 'ENOTFOUND')
  assert.equal(await resolver.resolve4('pr-7.preview.lunar.test'), ['203.0.113.20'])
})

test('texts: several, in quotes, and longer than one string can be', async ({ resolver }) => {
  assert.equal(await resolver.resolveTxt('_acme-challenge.app.lunar.test'), [['first'], ['second']])
  assert.equal(await resolver.resolveTxt('quoted.lunar.test'), [['one "part"', 'and another']])
  const [parts = []] = await resolver.resolveTxt('long.lunar.test')
  assert.equal(
    parts.map(({ length }) => length),
    [255, 255, 90],
  )
  assert.is(parts.join(''), LONG)
})

test('what a datagram has no room for comes over TCP', async ({ server, resolver }) => {
  assert.is((await resolver.resolveTxt('many.lunar.test')).length, 12)
  for (const more of [{}, edns(600), edns(4_096)]) {
    const packet = await ask(server, query('many.lunar.test', 'TXT', more))
    assert.equal([packet.flag_tc, packet.answers, packet.questions?.length], [true, [], 1])
  }
  const plain = await ask(server, query('long.lunar.test', 'TXT'))
  assert.equal([plain.flag_tc, plain.answers], [true, []])
  assert.not((await ask(server, query('long.lunar.test', 'TXT', edns(1_232)))).flag_tc)
})

test('EDNS is answered where it was asked with, and a version that is not known is told', async ({ server }) => {
  assert.equal((await ask(server, query('git.lunar.test', 'A'))).additionals, [])
  const known = await ask(server, query('git.lunar.test', 'A', edns(4_096)))
  const [extension] = known.additionals ?? []
  assert.equal([extension?.type, extension?.type === 'OPT' && extension.udpPayloadSize], ['OPT', 1_232])
  const unknown = await ask(server, query('git.lunar.test', 'A', edns(4_096, 1)))
  const [told] = unknown.additionals ?? []
  assert.equal([told?.type === 'OPT' && told.extendedRcode, unknown.answers], [1, []])
})

test('names outside of the zone, other classes and transfers are refused', async ({ server, resolver }) => {
  for (const name of ['example.com', 'test', 'notlunar.test', 'lunar.test.example.com'])
    assert.is(await codeOf(resolver.resolve4(name)), 'EREFUSED', name)
  assert.not((await ask(server, query('example.com', 'A'))).flag_aa)
  const chaos = encode({ type: 'query', id: 1, questions: [{ name: 'lunar.test', type: 'TXT', class: 'CH' }] })
  assert.is(rcode(await ask(server, chaos)), RCODE.refused)
  assert.is(rcode(await ask(server, query('lunar.test', 'AXFR'))), RCODE.refused)
})

test('everything at once is not told, and types without a name are nothing', async ({ server }) => {
  const [any] = (await ask(server, query('git.lunar.test', 'ANY'))).answers ?? []
  assert.equal(any?.type === 'HINFO' && any.data.cpu, 'RFC8482')
  const https = await ask(server, query('git.lunar.test', 'UNKNOWN_65'))
  assert.equal([rcode(https), https.answers, https.authorities?.length], [RCODE.noError, [], 1])
})

test('a proxied name leads to Cloudflare', async ({ server, resolver }) => {
  for (const name of ['front.lunar.test', 'front-alias.lunar.test']) {
    assert.equal(await resolver.resolve4(name, { ttl: true }), [{ address: '104.16.0.1', ttl: 300 }])
    assert.equal(await resolver.resolve6(name), ['2606:4700::6810:1'])
  }
  assert.equal((await ask(server, query('front-alias.lunar.test', 'CNAME'))).answers, [])
})

test('hosts come before the records, and change as they do', async ({ resolver }) => {
  assert.equal(await resolver.resolve4('git-ssh.lunar.test'), ['10.88.0.1'])
  assert.equal(await resolver.resolve6('Git-SSH.lunar.test'), ['2001:db8::1'])
  const names = ['later.lunar.test', '*.later.lunar.test', 'lunar.test']
  for (const name of names) hosts.set(name, ['10.88.0.2'])
  for (const name of ['later.lunar.test', 'any.later.lunar.test', 'lunar.test'])
    assert.equal(await resolver.resolve4(name), ['10.88.0.2'], name)
  assert.is((await resolver.resolveNs('lunar.test')).length, 2)
  for (const name of names) hosts.delete(name)
  assert.is(await codeOf(resolver.resolve4('later.lunar.test')), 'ENOTFOUND')
})

test('hosts that it could never answer with are refused', async () => {
  for (const [name, address] of [
    ['git.example.com', '10.0.0.1'],
    ['Git.lunar.test', '10.0.0.1'],
    ['git.lunar.test', 'git-ssh'],
  ] as const)
    try {
      await (await startNameServer({ ...zone, hosts: new Map([[name, [address]]]) })).close()
      assert.unreachable(`${name} ${address}`)
    } catch (error) {
      assert.match((error as Error).message, /expected lower-case names in lunar\.test, and IP addresses/)
    }
})

test('the question is said back as it was, recursion wanted or not', async ({ server }) => {
  const bytes = query('gIt.LuNaR.tEsT', 'A', { flags: 0x0100 | AUTHENTIC_DATA })
  const answer = (await send(server, bytes)) ?? Buffer.alloc(0)
  assert.equal(answer.subarray(12, bytes.length), bytes.subarray(12))
  const packet = decode(answer)
  assert.equal([packet.id, packet.flag_rd, packet.flag_ra, packet.flag_ad], [4711, true, false, false])
  assert.is(packet.answers?.[0]?.name, 'gIt.LuNaR.tEsT')
})

test('what is no query, and what cannot be read, does no harm', async ({ server, resolver }) => {
  const good = query('git.lunar.test', 'A')
  const withByte = (index: number, value: number) => Buffer.from(good.map((byte, at) => (at === index ? value : byte)))
  assert.is(await send(server, Buffer.from('hello')), undefined, 'too short')
  const reply = createSocket('udp4')
  reply.send(withByte(2, 0x80), server.port, server.host)
  const silent = once(reply, 'message', { signal: AbortSignal.timeout(200) })
  assert.is(await silent.then(() => 'answered').catch(() => 'silent'), 'silent', 'an answer is not answered')
  reply.close()
  const cases: [string, Buffer, number][] = [
    ['a status request', withByte(2, 0x10), RCODE.notImplemented],
    ['no question', good.subarray(0, 12), RCODE.formatError],
    ['two questions where one is', withByte(5, 2), RCODE.formatError],
    ['65,535 answers that are not there', withByte(6, 255), RCODE.formatError],
    ['a name that goes on and on', withByte(12, 63), RCODE.formatError],
    ['a name that points at itself', Buffer.concat([good.subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])]), 1],
    ['a name that is no text', withByte(13, 0xff), RCODE.formatError],
  ]
  for (const [what, bytes, expected] of cases) assert.is(rcode(await ask(server, bytes)), expected, what)
  assert.equal(await resolver.resolve4('git-ssh.lunar.test'), ['10.88.0.1'])
})

test('over TCP: several questions in one piece, one in many, and clients that go away', async ({ server }) => {
  const message = (name: string) => streamEncode({ type: 'query', id: 1, questions: [{ name, type: 'A' }] })
  const answersTo = async (pieces: Buffer[]) => {
    const socket = connect(server.port, server.host)
    for (const piece of pieces) {
      socket.write(piece)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    socket.end() // it may be done with asking, and still wants to be answered
    const chunks: Buffer[] = []
    for await (const chunk of socket) chunks.push(chunk)
    const sizes: number[] = []
    let rest = Buffer.concat(chunks)
    for (; rest.length > 0; rest = rest.subarray(2 + rest.readUInt16BE()))
      sizes.push(decode(rest.subarray(2)).answers?.length ?? 0)
    return sizes
  }
  const three = Buffer.concat([message('git.lunar.test'), message('none.lunar.test'), message('shop.lunar.test')])
  assert.equal(await answersTo([three]), [2, 0, 3])
  assert.equal(await answersTo([...three].map((byte) => Buffer.from([byte]))), [2, 0, 3])
  assert.equal(await answersTo([Buffer.from([0, 3, 1, 2, 3])]), [], 'too short to be a question')
  for (let n = 0; n < 300; n++) {
    const socket = connect(server.port, server.host)
    socket.on('error', () => {})
    await once(socket, 'connect')
    socket.write(n % 2 ? three : three.subarray(0, 9))
    socket.resetAndDestroy()
  }
  assert.equal(await answersTo([three]), [2, 0, 3])
})

test('closed, it lets go of its port, and of who is connected', async () => {
  const server = await startNameServer(zone)
  const socket = connect(server.port, server.host)
  await once(socket, 'connect')
  await Promise.all([once(socket, 'close'), server.close()])
  const again = connect(server.port, server.host)
  const [error] = await once(again, 'error')
  assert.is(error.code, 'ECONNREFUSED')
})

test.run()
