// Templates: a missing value is named, nothing is escaped for HTML, and the YAML reads back equal, whatever it holds.
import { randomInt } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { parse } from 'yaml'
import { ROOT } from '../lib/site.ts'
import { render, renderTemplate } from '../lib/templates.ts'

const AWKWARD = [
  'acme', '', ' ', 'yes', 'no', 'null', '~', 'true', '1', '1e3', '0o17', '0x1f', '1:30', '2026-11-24', '.inf', '=', '<<', '-', '?', ':',
  'a: b', 'a #b', '# a', '- a', '[a]', '{a}', '"', "'", "it's", 'say "hi"', '\\', '\\n', '\n', 'a\nb', 'a\r\nb', '\t', ' a ', 'a\n', '&a', '*a',
  '!a', '|', '>', '%a', '@a', '`a`', '<b>&amp;</b>', '{{a}}', '${a}', '\u0000', '\u0007', '\u0085', '\u2028', '\ufeff', '\u007f', 'ü', '日本', '😀', '\ud800',
  '---', '...', 'a'.repeat(5000),
] // biome-ignore format: a list

test('whatever a string contains, the YAML reads back equal', () => {
  for (const value of AWKWARD)
    assert.equal(parse(render('a: {{yaml value}}\n', { value }, 'x')), { a: value }, JSON.stringify(value))
})

test('so do random strings of any code points', () => {
  for (let round = 0; round < 2000; round++) {
    const value = Array.from({ length: randomInt(0, 12) }, () => {
      const point = randomInt(0, 3) ? randomInt(0, 256) : randomInt(0, 0x110000)
      return String.fromCodePoint(point >= 0xd800 && point < 0xe000 ? 0x20 : point)
    }).join('')
    assert.equal(parse(render('a: {{yaml value}}\nb: 1\n', { value }, 'x')), { a: value, b: 1 }, JSON.stringify(value))
  }
})

test('numbers, booleans, lists and maps keep their type', () => {
  for (const value of [0, -1.5, 1e21, true, false, null, [], ['a', 'b: c'], {}, { 'a b': ['x\ny'], null: 'null' }])
    assert.equal(parse(render('a: {{yaml value}}\n', { value }, 'x')), { a: value })
})

test('the values file of a customer reads back what it was given', () => {
  for (const awkward of AWKWARD.filter((text) => text !== '')) {
    const view = {
      customer: awkward,
      subdomain: awkward,
      image_repository: awkward,
      tag: awkward,
      existing_secret: awkward,
      secret_checksum: awkward,
    }
    assert.equal(parse(renderTemplate('values.yaml', view)), {
      customer: awkward,
      subdomain: awkward,
      image: { repository: awkward, tag: awkward },
      existingSecret: awkward,
      secretChecksum: awkward,
      env: { NODE_ENV: 'production' },
    })
  }
})

test('a value that is missing is named, with the template that needs it', () => {
  assert.throws(() => render('{{yaml a}}', {}, 'x.yaml'), /the template x.yaml needs a, which is not given/)
  assert.throws(() => render('{{yaml a.b}}', { a: {} }, 'x.yaml'), /needs a\.b/)
  assert.throws(() => render('{{#if a}}1{{/if}}', {}, 'x.yaml'), /needs a,/)
  assert.is(render('{{#if a}}1{{/if}}', { a: undefined }, 'x.yaml'), '')
  assert.throws(() => render('{{yaml a}}', { a: undefined }, 'x.yaml'), /a/)
  assert.throws(() => renderTemplate('values.yaml', { customer: 'acme' }), /values.yaml needs subdomain/)
})

test('nothing that every object has can be reached', () => {
  for (const name of ['constructor', '__proto__', 'toString', 'constructor.name'])
    assert.throws(() => render(`{{yaml ${name}}}`, { a: 1 }, 'x'), /./)
})

test('a helper that does not exist is an error', () => {
  assert.throws(() => render('{{json a}}', { a: 1 }, 'x'), /./)
})

test('nothing is escaped for HTML', () => {
  assert.is(render('{{yaml a}}', { a: '<&>"' }, 'x'), JSON.stringify('<&>"'))
})

test('an inventory takes plain words only', () => {
  assert.is(render('h={{ini a}}', { a: '203.0.113.7' }, 'x'), 'h=203.0.113.7')
  for (const a of ['a b', 'a\nb', '', 'a#b', 'a;b', "a'b", 7])
    assert.throws(() => render('h={{ini a}}', { a }, 'x'), /inventory/)
})

test('every value in every template goes through a helper', () => {
  const folder = join(ROOT, 'templates')
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.hbs')))
    for (const [mustache] of readFileSync(join(folder, file), 'utf8').matchAll(/\{\{[^}]*\}\}/g))
      assert.match(mustache, /^\{\{(yaml [\w.]+|ini [\w.]+|#if \w+|\/if)\}\}$/, `${file}: ${mustache}`)
})

test.run()
