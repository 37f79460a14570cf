// A secret is never shown, in whatever form it is printed or encoded.
import { inspect } from 'node:util'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { redact, Secret } from '../lib/secret.ts'

const value = 'pa$$ word/"ü"+=secret'

test('every way of printing a Secret says [redacted]', () => {
  const secret = new Secret(value)
  const printed = [
    `${secret}`,
    String(secret),
    JSON.stringify({ secret }),
    inspect({ deep: { secret } }),
    inspect(secret, { showHidden: true, depth: 9 }),
    new Error(`with ${secret}`).message,
    [secret].join(),
  ]
  for (const text of printed) {
    assert.ok(text.includes('[redacted]'), text)
    assert.not.ok(text.includes('word'), text)
  }
  assert.is(secret.reveal(), value)
})

test('redact masks a secret in the forms in which tools print it', () => {
  new Secret(value)
  const forms = [value, encodeURIComponent(value), JSON.stringify(value), Buffer.from(value).toString('base64')]
  for (const form of forms) assert.is(redact(`before ${form} after`).includes(form.slice(1, -1)), false, form)
  assert.match(redact(`postgresql://u:${encodeURIComponent(value)}@h/d`), 'postgresql://u:[redacted]@h/d')
})

test('of two secrets, one the start of the other, nothing is left', () => {
  new Secret('first-part')
  new Secret('first-part-and-more')
  assert.is(redact('x first-part-and-more y'), 'x [redacted] y')
})

test('an empty or tiny value masks nothing, or no text could be read any more', () => {
  new Secret('')
  new Secret('ab')
  assert.is(redact('an abacus'), 'an abacus')
})

test.run()
