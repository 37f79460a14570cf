// How the stand-in plans: as providers on Terraform's older SDK do.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { conform, keepUnset, planFields, replacements } from '../../rehearsal/provider/plan.ts'
import {
  bool,
  computed,
  listBlocks,
  listOf,
  number,
  optional,
  optionalComputed,
  required,
  setBlocks,
  setOf,
  string,
} from '../../rehearsal/provider/schema.ts'
import { pack, UNKNOWN, unpack } from '../../rehearsal/provider/values.ts'

const test = suite('plan')

const fields = {
  id: optionalComputed(string),
  name: required(string, { replace: true }),
  region: required(string, { store: (wanted) => wanted.toLowerCase() }),
  size: optional(number, { fallback: 1 }),
  enabled: optional(bool),
  tags: optional(setOf(string)),
  endpoints: computed(listOf(string)),
  window: listBlocks({ hour: required(string, { same: (prior, wanted) => prior.startsWith(wanted) }) }),
  pool: listBlocks({ id: computed(string), size: required(string, { replace: true }) }),
  rule: setBlocks({ uuid: computed(string), value: required(string) }),
  policy: listBlocks({ day: optionalComputed(string) }, { computed: true }),
}
const config = {
  ...{ id: null, name: 'a', region: 'NYC3', size: null, enabled: null, tags: null, endpoints: null },
  ...{ window: [{ hour: '03:00' }], pool: [{ id: null, size: 's' }], rule: [{ uuid: null, value: 'x' }], policy: [] },
}
const state = {
  ...{ id: '1', name: 'a', region: 'nyc3', size: 1, enabled: false, tags: [], endpoints: ['e'] },
  ...{ window: [{ hour: '03:00:00' }], pool: [{ id: 'p', size: 's' }], rule: [{ uuid: 'u', value: 'x' }] },
  policy: [{ day: 'any' }],
}

test('at birth, what the provider computes is unknown, and defaults are filled in', () => {
  assert.equal(planFields(fields, config, null), {
    ...config,
    ...{ id: UNKNOWN, region: 'nyc3', size: 1, endpoints: UNKNOWN, policy: UNKNOWN },
    ...{ pool: [{ id: UNKNOWN, size: 's' }], rule: [{ uuid: UNKNOWN, value: 'x' }] },
  })
})

test('what means the same is no change: not set and zero, other spellings, what is computed', () => {
  assert.equal(planFields(fields, config, state), state)
  assert.equal(planFields(fields, { ...config, enabled: false, tags: [] }, { ...state, enabled: null, tags: null }), {
    ...state,
    ...{ enabled: null, tags: null },
  })
})

test('sets have no order', () => {
  const tagged = { ...state, tags: ['a', 'b'] }
  assert.equal(planFields(fields, { ...config, tags: ['b', 'a'] }, tagged).tags, ['a', 'b'])
  const rules = [
    { uuid: 'u', value: 'x' },
    { uuid: 'v', value: 'y' },
  ]
  const swapped = ['y', 'x'].map((value) => ({ uuid: null, value }))
  assert.equal(planFields(fields, { ...config, rule: swapped }, { ...state, rule: rules }).rule, [rules[1], rules[0]])
})

test('a change is planned, and only the new row of a set is new', () => {
  const wanted = { ...config, size: 2, rule: [...config.rule, { uuid: null, value: 'y' }] }
  const planned = planFields(fields, wanted, state)
  assert.equal(planned, {
    ...state,
    size: 2,
    rule: [
      { uuid: 'u', value: 'x' },
      { uuid: UNKNOWN, value: 'y' },
    ],
  })
  assert.equal(replacements(fields, planned, state), [])
})

test('what cannot change in place is told with its path', () => {
  const planned = planFields(fields, { ...config, name: 'b', pool: [{ id: null, size: 't' }] }, state)
  assert.equal(replacements(fields, planned, state), [['name'], ['pool', 0, 'size']])
})

test('what is not known yet stays so', () => {
  assert.is(planFields(fields, { ...config, region: UNKNOWN }, state).region, UNKNOWN)
})

test('a row has exactly what the schema has', () => {
  assert.equal(conform({ a: required(string), b: listBlocks({ c: optional(string) }) }, { a: 'x', d: 1 }), {
    a: 'x',
    b: [],
  })
})

test('an empty answer for what was never set stays not set', () => {
  assert.is(keepUnset(fields, { ...state, tags: [] }, { ...state, tags: null }).tags, null)
  assert.equal(keepUnset(fields, { ...state, tags: [] }, { ...state, tags: ['a'] }).tags, [])
  assert.equal(keepUnset(fields, { ...state, endpoints: [] }, { ...state, endpoints: UNKNOWN }).endpoints, [])
})

test('values travel unchanged', () => {
  const value = { a: [1, 'x', null, { b: true }], c: UNKNOWN, d: 1.5, e: 411775421 }
  assert.equal(unpack(pack(value)), value)
  assert.is(unpack(pack(null)), null)
  assert.is(unpack(undefined), null)
})

test.run()
