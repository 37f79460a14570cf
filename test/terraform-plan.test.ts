// What a plan would touch, and what a runbook may not.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  changeLine,
  changesOf,
  forbidden,
  onlyAddOrUpdate,
  onlyMakesRecords,
  removesRecordOf,
} from '../lib/terraform-plan.ts'

type Values = Record<string, unknown> | null

const change = (address: string, actions: string[], before: Values = null, after: Values = null, more = {}) => ({
  address,
  change: { actions, before, after, after_unknown: {}, ...more },
})
const plan = (...resource_changes: (ReturnType<typeof change> & { previous_address?: string })[]) => ({
  resource_changes,
})

test('what a plan touches: creation, update by attribute, replacement, import; not reading, not nothing', () => {
  const changes = changesOf(
    plan(
      change('a.new', ['create']),
      change('a.resized', ['update'], { size: 1, name: 'x' }, { size: 2, name: 'x' }),
      change('a.replaced', ['delete', 'create'], { region: 'nyc3' }, { region: 'ams3' }),
      change('a.replaced_later', ['create', 'delete'], { region: 'nyc3' }, { region: 'ams3' }),
      change('a.gone', ['delete']),
      change('a.imported', ['no-op'], {}, {}, { importing: { id: 'x' } }),
      change('a.renamed', ['update'], { name: 'x' }, { name: 'y' }, { importing: { id: 'x' } }),
      change('a.same', ['no-op']),
      change('data.read', ['read']),
    ),
  )
  assert.equal(changes.map(changeLine), [
    'create a.new',
    'update a.resized (size)',
    'replace a.replaced (region)',
    'replace a.replaced_later (region)',
    'delete a.gone',
    'import a.imported',
    'import a.renamed (name)',
  ])
})

test('an attribute that is only known after apply counts as changed', () => {
  const [update] = changesOf(
    plan(change('a.b', ['update'], { id: '1', ip: 'x' }, { id: '1' }, { after_unknown: { ip: true } })),
  )
  assert.equal(update?.attributes, ['ip'])
})

test('what is not known, moved or forgotten is never allowed', () => {
  const changes = changesOf(
    plan(
      { ...change('a.moved', ['no-op']), previous_address: 'a.before' },
      change('a.forgotten', ['forget']),
      change('a.made_and_forgotten', ['create', 'forget']),
    ),
  )
  assert.equal(changes.map(changeLine), ['other a.moved', 'other a.forgotten', 'other a.made_and_forgotten'])
  assert.equal(forbidden(changes, onlyAddOrUpdate), changes)
  assert.equal(forbidden(changes, onlyMakesRecords), changes)
})

test('bootstrap may add and update, and nothing else', () => {
  const changes = changesOf(
    plan(change('a', ['create']), change('b', ['update']), change('c', ['delete']), change('d', ['delete', 'create'])),
  )
  assert.equal(
    forbidden(changes, onlyAddOrUpdate).map(({ address }) => address),
    ['c', 'd'],
  )
})

test('add-customer may make customers’ records, or take them as they are; nothing else', () => {
  const importing = { importing: { id: 'x' } }
  const record = 'cloudflare_dns_record.customer["acme"]'
  const changes = changesOf(
    plan(
      change(record, ['create']),
      change('cloudflare_dns_record.customer["other"]', ['create']),
      change(record, ['no-op'], {}, {}, importing),
      change(record, ['update'], { content: 'x' }, { content: 'y' }, importing),
      change(record, ['update'], { content: 'x' }, { content: 'y' }),
      change(record, ['delete']),
      change('cloudflare_dns_record.gitea["git"]', ['create']),
    ),
  )
  assert.equal(forbidden(changes, onlyMakesRecords), changes.slice(3))
})

test('remove-customer may remove that customer’s record, and make those of the half added; nothing else', () => {
  const record = (customer: string) => `cloudflare_dns_record.customer["${customer}"]`
  const changes = changesOf(
    plan(
      change(record('acme'), ['delete']),
      change(record('other'), ['create']),
      change(record('other'), ['delete']),
      change(record('acme-two'), ['delete']),
      change(record('acme'), ['delete', 'create']),
      change(record('acme'), ['update'], { content: 'x' }, { content: 'y' }),
      change('cloudflare_dns_record.gitea["acme"]', ['delete']),
      change('digitalocean_database_cluster.postgres', ['delete']),
    ),
  )
  assert.equal(forbidden(changes, removesRecordOf('acme')), changes.slice(2))
})

test.run()
