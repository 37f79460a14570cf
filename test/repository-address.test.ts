// Whether the site's own Gitea hosts its repository, under which address who knows it, and how Git gets there.
import { execFileSync } from 'node:child_process'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { argocdRepository, giteaSsh, hostedRepository } from '../lib/repository-address.ts'

const domain = 'lunarfront.test'
const HOSTED = `ssh://git@git-ssh.${domain}:2222/ryan/lunarfront-infra.git`

test('only what is at this site’s own Gitea is hosted by it', () => {
  assert.equal(hostedRepository({ domain, repository: HOSTED }), { owner: 'ryan', name: 'lunarfront-infra' })
  for (const repository of [
    '/srv/git/lunarfront-infra.git',
    'git@github.com:ryan/lunarfront-infra.git',
    'ssh://git@git-ssh.elsewhere.test:2222/ryan/lunarfront-infra.git',
    `ssh://git@git-ssh.${domain}/ryan/lunarfront-infra.git`,
    `ssh://git@git-ssh.${domain}:2222/lunarfront-infra.git`,
    `ssh://git@git-ssh.${domain}:2222/ryan/lunarfront-infra`,
    `ssh://git@git-sshX${domain}:2222/ryan/lunarfront-infra.git`,
    `x${HOSTED}`,
  ])
    assert.is(hostedRepository({ domain, repository }), undefined, repository)
})

test('Argo CD has it under the host name of Gitea’s pages, and any other as it is', () => {
  assert.is(argocdRepository({ domain, repository: HOSTED }), `ssh://git@git.${domain}:2222/ryan/lunarfront-infra.git`)
  assert.is(argocdRepository({ domain, repository: 'git@x.test:y.git' }), 'git@x.test:y.git')
})

test('Git goes to the address, by the key that is known of the name, whatever the folders are called', () => {
  const command = giteaSsh({ domain, directory: "/home/o'neil/my site" }, '203.0.113.7', '/home/o neil/key')
  // What OpenSSH itself makes of it.
  const shown = execFileSync('sh', ['-c', `${command} -G -p 2222 git@git-ssh.${domain}`], { encoding: 'utf8' })
  for (const line of [
    'hostname 203.0.113.7',
    `hostkeyalias [git-ssh.${domain}]:2222`,
    "userknownhostsfile /home/o'neil/my site/known_hosts",
    'globalknownhostsfile /dev/null',
    'stricthostkeychecking true',
    'identityfile /home/o neil/key',
    'identitiesonly yes',
    'batchmode yes',
  ])
    assert.match(shown, line)
})

test.run()
