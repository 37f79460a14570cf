#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Brings a version of the application to the customers: the canaries first, and all others when those run it.
import { misuse } from '../lib/failure.ts'
import { openPlatform } from '../lib/platform.ts'
import * as preflight from '../lib/preflight.ts'
import { audiences, canarySteps, followerSteps, tagStep } from '../lib/rollout.ts'
import { runbook, startedAs } from '../lib/runbook.ts'
import { imageTag } from '../lib/values.ts'

export const deploy = runbook({
  name: 'deploy',
  summary: 'Brings a version to every customer that is not pinned: the canaries first, the others when those run it.',
  options: { tag: { summary: 'the image’s tag, as CI has pushed it', value: 'TAG', parse: imageTag } },
  procedure: async (run, { tag }) => {
    if (!tag) throw misuse({ found: 'no --tag', expected: 'the tag of an image that was pushed', next: '--tag TAG' })
    const platform = openPlatform(run)
    const { canaries, following, pinned } = audiences(await platform.customers())
    if (following.length > 0 && canaries.length === 0)
      run.emit({ event: 'warning', text: 'no customer has `rollout: canary`, so all get it at the same time' })

    const first = tagStep(platform, 'canaries', tag, [])
    const tried = canarySteps(platform, canaries, tag, [first])
    const all = tagStep(platform, 'all', tag, [first, ...tried])
    return {
      preflight: preflight.providerPreconditions(run),
      steps: [first, ...tried, all, ...followerSteps(platform, following, tag, [all])],
      afterwards: pinned.map(({ customer, image }) => `${customer} stays at ${image.tag}, to which its file pins it`),
    }
  },
})

startedAs(import.meta.url, deploy)
