// Who gets a version, and how its tag is written into the chart's files.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readValues } from '../lib/customers.ts'
import { audiences, tagIn, withTag } from '../lib/rollout.ts'
import { ROOT } from '../lib/site.ts'

const customer = (name: string, more = '', image = '') =>
  readValues(
    `customer: ${name}\nsubdomain: ${name}\nimage: { repository: registry.test/app${image} }\n${more}`,
    'values.yaml',
    name,
  )

test('canaries are first, and follow too; who is pinned is neither', () => {
  const fleet = [
    customer('acme', 'rollout: canary'),
    customer('beta', 'rollout: rest'),
    customer('gamma'),
    customer('pinned', '', ', tag: "1"'),
    customer('pinned-canary', 'rollout: canary', ', tag: "1"'),
  ]
  const names = Object.fromEntries(
    Object.entries(audiences(fleet)).map(([audience, members]) => [
      audience,
      members.map((one) => one.customer).join(),
    ]),
  )
  assert.equal(names, { canaries: 'acme', following: 'acme,beta,gamma', pinned: 'pinned,pinned-canary' })
  assert.throws(() => customer('acme', 'rollout: first'), /rollout/)
})

/** @returns the lines that only one of the texts has */
const difference = (one: string, other: string) => {
  const [lines, others] = [one.split('\n'), other.split('\n')]
  return [lines.filter((line) => !others.includes(line)), others.filter((line) => !lines.includes(line))]
}

test('a tag is one line of the chart’s values, in quotes, and all else stays', () => {
  const text = readFileSync(join(ROOT, 'gitops', 'chart', 'values.yaml'), 'utf8')
  const tagged = withTag(text, '0123456')
  assert.equal(difference(text, tagged), [['  tag: ""'], ['  tag: "0123456"']])
  assert.is(tagIn(text, 'values.yaml'), '')
  assert.is(tagIn(tagged, 'values.yaml'), '0123456')
  assert.is(withTag(tagged, ''), text)
})

test('so it is in the canaries’ file, which may have none', () => {
  const text = readFileSync(join(ROOT, 'gitops', 'chart', 'canary.yaml'), 'utf8')
  const tagged = withTag(text, '1e5')
  assert.equal(difference(text, tagged), [['image: {}'], ['image: { tag: "1e5" }']])
  assert.is(tagIn(text, 'canary.yaml'), '')
  assert.is(tagIn(tagged, 'canary.yaml'), '1e5')
})

test('a file that is none is refused by name', () => {
  assert.throws(() => tagIn('image: [', 'canary.yaml'), /canary\.yaml/)
  assert.throws(() => tagIn('image: { tag: 7 }', 'canary.yaml'), /canary\.yaml/)
})

test.run()
