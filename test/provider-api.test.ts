// The questions to DigitalOcean and Cloudflare: asked again where that helps, and told in the provider's words where not.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Failure } from '../lib/failure.ts'
import {
  ApiError,
  account,
  askCloudflare,
  askDigitalocean,
  type Providers,
  unlessMissing,
} from '../lib/provider-api.ts'
import { Secret } from '../lib/secret.ts'
import { type Listener, listen } from '../rehearsal/cloud/http.ts'

type Answering = (outgoing: ServerResponse, incoming: IncomingMessage) => void
type Provider = Listener & { providers: Providers; asked: { at: number; path: string; authorization: string }[] }

const test = suite<{ open: Listener[] }>('provider API')
test.before.each((context) => {
  context.open = []
})
test.after.each(async ({ open }) => {
  for (const { close } of open) await close()
})

/** A provider that answers the first request with the first answer, and every later one with the last. */
async function provider({ open }: { open: Listener[] }, ...answers: Answering[]): Promise<Provider> {
  const asked: Provider['asked'] = []
  const listener = await listen(
    createServer((incoming, outgoing) => {
      const { url: path = '', headers } = incoming
      asked.push({ at: performance.now(), path, authorization: headers.authorization ?? '' })
      answers[Math.min(asked.length, answers.length) - 1]?.(outgoing, incoming)
    }),
  )
  open.push(listener)
  const { url } = listener
  return {
    ...listener,
    asked,
    providers: {
      credentials: {
        digitalocean: { url, token: new Secret('token-of-digitalocean') },
        cloudflare: { url, token: new Secret('token-of-cloudflare') },
        spaces: { endpoint: url, accessKeyId: new Secret('unused'), secretAccessKey: new Secret('unused') },
      },
      signal: new AbortController().signal,
    },
  }
}

const says =
  (status: number, body: unknown, headers: Record<string, string> = {}): Answering =>
  (outgoing) =>
    outgoing.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
const drops: Answering = (_outgoing, incoming) => incoming.socket.destroy()

const failing = (attempt: Promise<unknown>): Promise<unknown> =>
  attempt.then(
    () => assert.unreachable('it did not fail'),
    (error: unknown) => error,
  )

test('each provider is asked with its own token, and its answer is returned', async (context) => {
  const { providers, asked } = await provider(context, says(200, { yes: true }))
  assert.equal(await askDigitalocean(providers, '/v2/x?y=z'), { yes: true })
  assert.equal(await askCloudflare(providers, '/zones/1'), { yes: true })
  assert.equal(
    asked.map(({ path, authorization }) => [path, authorization]),
    [
      ['/v2/x?y=z', 'Bearer token-of-digitalocean'],
      ['/zones/1', 'Bearer token-of-cloudflare'],
    ],
  )
})

test('after a 429 it is asked again, when the provider wants to be', async (context) => {
  const { providers, asked } = await provider(
    context,
    says(429, { message: 'too many' }, { 'retry-after': '2' }),
    says(200, { yes: true }),
  )
  assert.equal(await askDigitalocean(providers, '/v2/x'), { yes: true })
  assert.is(asked.length, 2)
  const pause = asked[1]!.at - asked[0]!.at
  assert.ok(pause >= 1990, `asked again after ${pause} ms`) // without Retry-After it would be 500
})

test('after a 5xx and after a broken connection it is asked again', async (context) => {
  const { providers, asked } = await provider(context, says(503, {}), drops, says(200, { yes: true }))
  assert.equal(await askDigitalocean(providers, '/v2/x'), { yes: true })
  assert.is(asked.length, 3)
})

test('one that breaks every connection is given up, and named with its host', async (context) => {
  const { providers, asked, url } = await provider(context, drops)
  const error = await failing(askDigitalocean(providers, '/v2/secret-path'))
  assert.instance(error, Failure)
  const { message, next } = error as Failure
  assert.match(message, `${new URL(url).host} could not be reached: `)
  assert.match(next ?? '', `curl -sS -o /dev/null -w '%{http_code}\\n' ${url}`)
  assert.is(asked.length, 4)
})

test('one that is not there is given up, and named with its host and why', async (context) => {
  const { providers, url, close } = await provider(context)
  await close()
  const error = await failing(askDigitalocean(providers, '/v2/x'))
  assert.instance(error, Failure)
  assert.match((error as Failure).message, `${new URL(url).host} could not be reached: ECONNREFUSED`)
})

test('one that stays broken is told in its own words', async (context) => {
  const { providers, asked } = await provider(context, says(500, { message: 'out of order' }))
  const error = await failing(askDigitalocean(providers, '/v2/x'))
  assert.instance(error, ApiError)
  assert.equal([(error as ApiError).status, (error as ApiError).message], [500, 'out of order'])
  assert.is(asked.length, 4)
})

test('a refusal is not asked again, and told in either provider’s words', async (context) => {
  for (const [body, message] of [
    [{ id: 'unauthorized', message: 'Unable to authenticate you' }, 'Unable to authenticate you'],
    [{ success: false, errors: [{ message: 'Invalid token' }, { message: 'No zone' }] }, 'Invalid token; No zone'],
    [{}, 'Unauthorized'],
    ['<html>', 'Unauthorized'],
  ] as const) {
    const { providers, asked } = await provider(context, says(401, body))
    const error = await failing(askCloudflare(providers, '/zones/1'))
    assert.instance(error, ApiError)
    assert.equal([(error as ApiError).status, (error as ApiError).message], [401, message])
    assert.is(asked.length, 1)
  }
})

test('what is not there is undefined where that is an answer, and nothing else is', async (context) => {
  const missing = await provider(context, says(404, { message: 'not found' }))
  assert.is(await askDigitalocean(missing.providers, '/v2/x').catch(unlessMissing), undefined)
  const refused = await provider(context, says(403, { message: 'no' }))
  assert.instance(await failing(askDigitalocean(refused.providers, '/v2/x').catch(unlessMissing)), ApiError)
})

test('an interruption ends the wait for another try', async (context) => {
  const { providers, asked } = await provider(context, says(429, {}, { 'retry-after': '3600' }))
  const interruption = new AbortController()
  const error = failing(askDigitalocean({ ...providers, signal: interruption.signal }, '/v2/x'))
  while (asked.length === 0) await new Promise((resolve) => setImmediate(resolve))
  interruption.abort()
  assert.is(((await error) as Error).name, 'AbortError')
  assert.is(asked.length, 1)
})

test('what a provider says is checked before it is believed', async (context) => {
  const answer = { account: { email: 'a@b', status: 'active', droplet_limit: 10, more: 1 } }
  const good = await provider(context, says(200, answer))
  assert.is((await account(good.providers)).droplet_limit, 10)
  const bad = await provider(context, says(200, { account: { ...answer.account, droplet_limit: '10' } }))
  await failing(account(bad.providers))
})

test.run()
