// What is told of an instance that does not come up, from what Kubernetes says of its pods and of those who make them.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { lookAt } from '../lib/diagnosis.ts'

const test = suite('diagnosis')

type Parts = { labels?: Record<string, string>; created?: string; deleted?: boolean; status: object }

const pod = (name: string, { labels = {}, created = '2026-01-01T00:00:00Z', deleted = false, status }: Parts) => ({
  kind: 'Pod',
  metadata: { name, creationTimestamp: created, labels, ...(deleted ? { deletionTimestamp: created } : {}) },
  status,
})

const container = (parts: object) => ({ ready: false, restartCount: 0, state: {}, lastState: {}, ...parts })

const migration = (name: string, parts: Omit<Parts, 'labels'>) =>
  pod(name, { labels: { 'app.kubernetes.io/component': 'migrate' }, ...parts })

const exited = (exitCode: number) => ({ terminated: { reason: 'Error', exitCode } })
const waiting = (reason: string, message = '') => ({ waiting: { reason, message } })

const look = (...items: object[]) => lookAt({ items }, 'customer-acme')
const texts = (...items: object[]) => look(...items).troubles.map(({ text }) => text)

test('nothing is wrong with pods that serve, begin or end', () => {
  const found = look(
    pod('app-1', { status: { phase: 'Running', containerStatuses: [container({ ready: true, state: {} })] } }),
    pod('app-2', {
      status: { phase: 'Pending', containerStatuses: [container({ state: waiting('ContainerCreating') })] },
    }),
    pod('app-3', { deleted: true, status: { phase: 'Failed', reason: 'Evicted' } }),
    migration('migrate-1', { status: { phase: 'Succeeded', containerStatuses: [container({ state: {} })] } }),
  )
  assert.equal(found, { waits: 'app: image pull', troubles: [], migrationStuck: false, failedMigrations: [] })
})

test('an image that is not there: which pod, Kubernetes’ words, and that the migration never began', () => {
  const status = {
    phase: 'Pending',
    containerStatuses: [container({ state: waiting('ImagePullBackOff', 'no such tag') })],
  }
  const { troubles, migrationStuck } = look(migration('migrate-1', { status }))
  assert.equal(
    troubles.map(({ text, next }) => [text, next]),
    [['pod migrate-1: ImagePullBackOff: no such tag', 'kubectl -n customer-acme describe pod migrate-1']],
  )
  assert.ok(migrationStuck)
  assert.not.ok(look(pod('app-1', { status })).migrationStuck)
})

test('what cannot be started is told with why, and without what its environment holds', () => {
  const message = `runc create failed: environment variable value can't contain null(\\x00): "KEY=hunter2\\x00 \\"more": unknown`
  const state = { terminated: { reason: 'StartError', exitCode: 128, message } }
  assert.equal(
    texts(migration('migrate-1', { status: { phase: 'Failed', containerStatuses: [container({ state })] } })),
    [
      `pod migrate-1 exited 128 (StartError): runc create failed: environment variable value can't contain null(\\x00): "KEY=…": unknown`,
    ],
  )
})

test('a crash loop is one in each of its states, until the pod is ready', () => {
  const crashed = { restartCount: 2, lastState: exited(1) }
  const said = (parts: object, phase = 'Running') =>
    texts(pod('app-1', { status: { phase, containerStatuses: [container({ ...crashed, ...parts })] } }))
  assert.equal(said({ state: waiting('CrashLoopBackOff', 'back-off 20s') }), [
    'pod app-1: CrashLoopBackOff: back-off 20s; it exited 1 (Error), restarts: 2',
  ])
  assert.equal(said({ state: exited(1) }), ['pod app-1 exited 1 (Error)'])
  assert.equal(said({ state: { running: {} } }), ['pod app-1: it exited 1 (Error), restarts: 2'])
  assert.equal(said({ state: { running: {} }, ready: true }), [])
})

test('a migration that failed: the newest try is told, and all are counted', () => {
  const status = { phase: 'Failed', containerStatuses: [container({ state: exited(1) })] }
  const found = look(
    migration('migrate-2', { created: '2026-01-01T00:00:09Z', status }),
    migration('migrate-1', { created: '2026-01-01T00:00:00Z', status }),
  )
  assert.equal(
    found.troubles.map(({ text, next }) => [text, next]),
    [['pod migrate-2 exited 1 (Error)', 'kubectl -n customer-acme logs job/migrate']],
  )
  assert.equal(found.failedMigrations, ['migrate-1', 'migrate-2'])
  assert.not.ok(found.migrationStuck, 'it has run')
})

test('a pod that no node has room for', () => {
  const conditions = [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '0/2 nodes' }]
  const found = look(pod('app-1', { status: { phase: 'Pending', conditions } }))
  assert.is(found.troubles[0]?.text, 'pod app-1: Unschedulable: 0/2 nodes')
  assert.is(found.waits, 'app: a node (0/2 nodes)')
})

const refused = (message: string) => [{ type: 'ReplicaFailure', status: 'True', reason: 'FailedCreate', message }]

test('pods that are never made: by the Deployment’s ReplicaSet, as long as it wants any', () => {
  const replicaSet = (replicas: number) => ({
    kind: 'ReplicaSet',
    metadata: { name: 'app-1' },
    spec: { replicas },
    status: { conditions: refused('violates PodSecurity') },
  })
  assert.equal(texts(replicaSet(1)), ['ReplicaSet app-1: FailedCreate: violates PodSecurity'])
  assert.equal(texts(replicaSet(0)), [])
})

test('pods that are never made: by the migration’s Job, and not by one before it of the same name', () => {
  const job = (status: object) => ({ kind: 'Job', metadata: { name: 'migrate', uid: 'new' }, status })
  const event = (uid: string, message: string) => ({
    kind: 'Event',
    reason: 'FailedCreate',
    message,
    involvedObject: { uid },
  })
  const found = look(event('old', 'before'), event('new', 'exceeded quota'), job({}))
  assert.is(found.troubles[0]?.text, 'Job migrate: FailedCreate: exceeded quota')
  assert.ok(found.migrationStuck)
  assert.equal(texts(event('old', 'before'), job({})), [])
  assert.equal(texts(event('new', 'exceeded quota'), job({ active: 1 })), [])
  const conditions = [{ type: 'Failed', status: 'True', reason: 'DeadlineExceeded', message: 'active longer' }]
  assert.equal(texts(job({ conditions })), ['Job migrate: DeadlineExceeded: active longer'])
})

test('what is wrong with the version before is not told of the one that is on its way', () => {
  const crashing = {
    phase: 'Running',
    containerStatuses: [container({ restartCount: 3, state: waiting('CrashLoopBackOff') })],
  }
  const fine = { phase: 'Running', containerStatuses: [container({ ready: true })] }
  const of = (template: string) => ({ 'pod-template-hash': template })
  const old = pod('app-old', { labels: of('old'), status: crashing })
  const later = '2026-01-01T00:01:00Z'
  const isTroubled = (...more: object[]) => texts(old, ...more).length > 0
  assert.ok(isTroubled())
  assert.not.ok(isTroubled(pod('app-new', { labels: of('new'), created: later, status: fine })))
  assert.ok(
    isTroubled(pod('app-two', { labels: of('old'), created: later, status: fine })),
    'a pod of the same version',
  )
  for (const phase of ['Pending', 'Running'])
    assert.not.ok(isTroubled(migration('migrate-2', { created: later, status: { phase } })), phase)
  assert.ok(isTroubled(migration('migrate-2', { created: later, status: { phase: 'Succeeded' } })))
})

test.run()
