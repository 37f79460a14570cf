// The platform as steps: what bootstrap is made of, and what comes first when all is brought back.
import { giteaAnswersStep } from './answers.ts'
import { argocdStep, platformStep } from './argocd.ts'
import { scheduleStep } from './backup-credentials.ts'
import { publishedStep } from './checkout.ts'
import { databaseStep, dropletStep, hostKeysStep } from './droplet.ts'
import { operatorKeysStep, organisationStep, runnerStep } from './gitea.ts'
import { finishedStep, terraformStep } from './infrastructure.ts'
import { inventoryStep } from './inventory.ts'
import { kubeconfigStep } from './kubernetes.ts'
import { appsDirectoryAtFirst, balancerStep, type Platform, pricePlan } from './platform.ts'
import { registryStep } from './registry.ts'
import { repositoryAccessStep } from './repository-access.ts'
import { bucketStep } from './spaces.ts'
import { onlyAddOrUpdate } from './terraform-plan.ts'

/** @returns the steps by name, in the order in which a runbook lists them */
export function platformSteps(platform: Platform) {
  const { run, terraform, outputs, repository, kubernetes, gitea } = platform
  const { droplet } = gitea
  const stateBucket = bucketStep(run.spaces, run.site.buckets.state)
  const finished = finishedStep(terraform, { needs: [stateBucket] })
  const infrastructure = terraformStep({
    run,
    title: 'infrastructure is as terraform/ says',
    open: terraform,
    outputs,
    appsDirectory: appsDirectoryAtFirst(run, platform),
    allowed: onlyAddOrUpdate,
    price: (after, before) => pricePlan(run, after, before),
    needs: [finished],
  })
  const inventory = inventoryStep(run.site, outputs, { needs: [infrastructure] })
  const published = publishedStep(repository, { needs: [infrastructure] })
  const credentials = kubeconfigStep(kubernetes, { needs: [infrastructure] })
  const hostKeys = hostKeysStep(droplet, kubernetes, { needs: [credentials] })
  const database = databaseStep(droplet, { needs: [hostKeys] })
  const configured = dropletStep(droplet, { needs: [database, inventory] })
  const giteaAnswers = giteaAnswersStep(run, [configured])
  const organisation = organisationStep(gitea, [giteaAnswers])
  const operatorKeys = operatorKeysStep(gitea, [giteaAnswers])
  const runner = runnerStep(gitea, [giteaAnswers])
  const registry = registryStep(gitea, [organisation])
  const access = repositoryAccessStep(kubernetes, { needs: [hostKeys] }) // of whose file it gives the cluster a copy
  const schedule = scheduleStep(platform, [access])
  const argocd = argocdStep(kubernetes, { needs: [access] })
  const applications = platformStep(kubernetes, repository, { needs: [argocd, published] })
  const balancer = balancerStep(platform, [applications])
  return {
    stateBucket,
    finished,
    infrastructure,
    inventory,
    published,
    credentials,
    hostKeys,
    database,
    configured,
    giteaAnswers,
    organisation,
    operatorKeys,
    runner,
    registry,
    access,
    ...(run.site.runbooks_image ? { schedule } : {}),
    argocd,
    applications,
    balancer,
  }
}
