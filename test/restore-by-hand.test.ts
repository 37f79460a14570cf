// docs/restore.md, "With plain tools": the very commands, run by a shell.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { withPostgres } from '../lib/postgres.ts'
import { ROOT } from '../lib/site.ts'
import { administrator, must, type Operator, startOperator } from './runbooks/operator.ts'

const test = suite<{ operator: Operator; directory: string }>('restore by hand')
test.before(async (context) => {
  context.operator = await startOperator()
  context.directory = mkdtempSync(join(tmpdir(), 'lunarfront-test-'))
})
test.after(async ({ operator, directory }) => {
  await operator.down()
  rmSync(directory, { recursive: true })
})

const commands = () => /```sh\n([\s\S]*?)```/.exec(readFileSync(join(ROOT, 'docs', 'restore.md'), 'utf8'))?.[1] ?? ''

test('the page’s own commands restore a customer’s database', async ({ operator, directory }) => {
  await must(operator, 'bootstrap', '--yes')
  await must(operator, 'add-customer', 'acme')
  const server = await administrator(operator)
  await withPostgres({ ...server, database: 'customer_acme' }, (client) =>
    client.query("CREATE TABLE notes AS SELECT n, 'note ' || n AS text FROM generate_series(1, 1000) n"),
  )
  await must(operator, 'backup')

  const ca = join(directory, 'ca.pem')
  writeFileSync(ca, server.ca)
  const { env } = operator
  const { status, stderr } = spawnSync('sh', ['-euc', commands()], {
    cwd: directory,
    encoding: 'utf8',
    env: {
      ...env,
      ...{ BUCKET: 'lunarfront-backups', CUSTOMER: 'acme', PGHOST: server.host, PGPORT: String(server.port) },
      ...{ PGUSER: server.user, PGPASSWORD: server.password.reveal(), PGSSLMODE: 'verify-full', PGSSLROOTCERT: ca },
    },
  })
  assert.is(status, 0, stderr)
  const sum = (database: string) =>
    withPostgres({ ...server, database }, async (client) => {
      const { rows } = await client.query(
        'SELECT count(*), md5(string_agg(text, n::text ORDER BY n)) AS md5 FROM notes',
      )
      return rows[0]
    })
  assert.equal(await sum('restored'), await sum('customer_acme'))
})

test.run()
