// Following an object on the cluster: what kubectl prints, and what it does when the server ends a watch.
import { setTimeout as sleep } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { follow, type Kubectl, type Kubernetes, type KubernetesObject } from '../lib/kubernetes.ts'

const test = suite('kubernetes')

const printed = (object: object) => JSON.stringify(object, null, 4).split('\n')

/** A kubectl whose watches print these objects, one list after the other, and end when they have; the last one stays. */
function watching(...watches: object[][]): { kubernetes: Kubernetes; asked: () => number } {
  let asked = 0
  const kubectl: Kubectl = async (_args, { onLine, enough } = {}) => {
    const objects = watches[asked++]
    for (const line of (objects ?? []).flatMap(printed)) onLine?.(line)
    if (asked >= watches.length && !enough?.aborted)
      await new Promise((resolve) => enough?.addEventListener('abort', resolve, { once: true }))
    return { code: 0, stdout: '', stderr: '' }
  }
  return { kubernetes: { kubectl } as unknown as Kubernetes, asked: () => asked }
}

test('a watch that the server ends is begun again, until enough was seen', async () => {
  const { kubernetes, asked } = watching([{ n: 1 }, { n: 2, spec: { deep: {} } }], [], [{ n: 3 }])
  const seen: unknown[] = []
  const enough = new AbortController()
  const isEnough = ({ n }: KubernetesObject) => {
    seen.push(n)
    return n === 3
  }
  await follow(kubernetes, ['pods'], isEnough, { enough, timeout: 30 })
  assert.equal(seen, [1, 2, 3])
  assert.is(asked(), 3)
  assert.ok(enough.signal.aborted)
})

test('the time that it may take ends it, and tells the others', async () => {
  const { kubernetes } = watching([{ n: 1 }])
  const enough = new AbortController()
  await follow(kubernetes, ['pods'], () => false, { enough, timeout: 0.05 })
  assert.ok(enough.signal.aborted)
})

test('what is wrong with what was seen is thrown to whoever follows', async () => {
  const { kubernetes } = watching([{ n: 1 }])
  const wrong = () => {
    throw new Error('not as expected')
  }
  const followed = follow(kubernetes, ['pods'], wrong, { enough: new AbortController(), timeout: 30 })
  const message = await Promise.race([
    followed.then(
      () => 'nothing',
      (error) => (error as Error).message,
    ),
    sleep(5000, 'it goes on', { ref: false }),
  ])
  assert.is(message, 'not as expected')
})

test.run()
