#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Raises a LunarFront from nothing, or brings one to what this checkout and the site file say.
import { argocdStep, platformStep, repositoryAccessStep } from '../lib/argocd.ts'
import { finishedStep, onlyAddOrUpdate, terraformStep } from '../lib/infrastructure.ts'
import { inventoryStep } from '../lib/inventory.ts'
import { kubeconfigStep } from '../lib/kubernetes.ts'
import { appsDirectoryAtFirst, balancerStep, openPlatform, pricePlan } from '../lib/platform.ts'
import * as preflight from '../lib/preflight.ts'
import { publishedStep } from '../lib/repository.ts'
import { runbook, startedAs } from '../lib/runbook.ts'
import { bucketStep } from '../lib/spaces.ts'

export const bootstrap = runbook({
  name: 'bootstrap',
  summary: 'Raises a LunarFront from nothing, or brings one to what this checkout and the site file say.',
  procedure: async (run) => {
    const platform = openPlatform(run)
    const stateBucket = bucketStep(run.spaces, run.site.buckets.state)
    const finished = finishedStep(platform.terraform)
    const infrastructure = terraformStep({
      run,
      title: 'infrastructure is as terraform/ says',
      open: platform.terraform,
      onApplied: platform.outputs.forget,
      appsDirectory: appsDirectoryAtFirst(run, platform),
      allowed: onlyAddOrUpdate,
      price: (after, before) => pricePlan(run, after, before),
    })
    const published = publishedStep(platform.repository, { needs: [infrastructure] })
    const credentials = kubeconfigStep(platform.kubernetes, { needs: [infrastructure] })
    const access = repositoryAccessStep(platform.kubernetes, { needs: [credentials] })
    const argocd = argocdStep(platform.kubernetes, { needs: [access] })
    const applications = platformStep(platform.kubernetes, platform.repository, { needs: [argocd, published] })
    return {
      preflight: [
        preflight.checkoutPrecondition(platform),
        ...preflight.providerPreconditions(run),
        preflight.limitPrecondition(run),
        preflight.budgetPrecondition(run),
      ],
      steps: [
        ...[stateBucket, finished, infrastructure, inventoryStep(run.site, platform.outputs), published],
        ...[credentials, access, argocd, applications, balancerStep(platform, [applications])],
      ],
      afterwards: ['next: ./runbooks/add-customer.mts NAME'],
    }
  },
})

startedAs(import.meta.url, bootstrap)
