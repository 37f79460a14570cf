// The platform as steps: what bootstrap is made of, and what comes first when all is brought back.
import { giteaAnswersStep } from './answers.ts'
import { argocdStep, platformStep } from './argocd.ts'
import { scheduleStep } from './backup-credentials.ts'
import { publishedStep } from './checkout.ts'
import type { AnyStep } from './converge.ts'
import { databaseStep, dropletStep } from './droplet-configuration.ts'
import { hostKeysStep } from './droplet-keys.ts'
import { imageOwner, operatorKeysStep, organisationStep, runnerStep } from './gitea.ts'
import { giteaScheduleStep } from './gitea-schedule.ts'
import { deployKeyStep, gitHostKeyStep, repositoryStep } from './hosted-repository.ts'
import { finishedStep, terraformStep } from './infrastructure.ts'
import { inventoryStep } from './inventory.ts'
import { kubeconfigStep } from './kubernetes.ts'
import { appsDirectoryAtFirst, balancerStep, type Platform, pricePlan } from './platform.ts'
import { registryStep } from './registry.ts'
import { repositoryAccessStep } from './repository-access.ts'
import { hostedRepository } from './repository-address.ts'
import { bucketStep } from './spaces.ts'
import { onlyAddOrUpdate } from './terraform-plan.ts'
import { webhookSecretStep, webhookStep } from './webhook.ts'

/** @returns the steps in the order in which a runbook lists them, and by name those that others need */
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
  const credentials = kubeconfigStep(kubernetes, { needs: [infrastructure] })
  const hostKeys = hostKeysStep(droplet, kubernetes, { needs: [credentials] })
  const hosted = hostedRepository(run.site)
  const gitHostKey = gitHostKeyStep(droplet, { needs: [hostKeys] })
  const database = databaseStep(droplet, { needs: [hostKeys] })
  const configured = dropletStep(droplet, { needs: [...(hosted ? [gitHostKey] : []), database, inventory] })
  const giteaAnswers = giteaAnswersStep(run, [configured])
  const owners = [imageOwner(run.site), ...(hosted ? [hosted.owner] : [])]
  const organisation = organisationStep(gitea, owners, [giteaAnswers])
  const operatorKeys = operatorKeysStep(gitea, [giteaAnswers])
  const runner = runnerStep(gitea, [giteaAnswers])
  const registry = registryStep(gitea, [organisation])
  const access = repositoryAccessStep(kubernetes, { needs: [hosted ? gitHostKey : hostKeys] }) // of whose file it gives the cluster a copy
  const hosting = hosted && hostingSteps(platform, { organisation, operatorKeys, access })
  const published = publishedStep(repository, { needs: hosting ? [hosting.repository] : [infrastructure] })
  const schedule = scheduleStep(platform, [access])
  const giteaSchedule = giteaScheduleStep(droplet, { needs: [configured] })
  const argocd = argocdStep(kubernetes, { needs: [hosting ? hosting.secret : access] })
  const applications = platformStep(kubernetes, repository, {
    needs: [argocd, published, ...(hosting ? [hosting.deployKey] : [])],
  })
  const balancer = balancerStep(platform, [applications])
  const steps = [
    ...[stateBucket, finished, infrastructure, inventory],
    ...(hosting ? [] : [published]),
    ...[credentials, hostKeys],
    ...(hosting ? [gitHostKey] : []),
    ...[database, configured, giteaAnswers, organisation, operatorKeys, runner, registry, access],
    ...(hosting ? [hosting.secret, hosting.repository, hosting.deployKey, hosting.webhook, published] : []),
    ...(run.site.runbooks_image ? [schedule, giteaSchedule] : []),
    ...[argocd, applications, balancer],
  ]
  return { steps, credentials, published, applications, balancer }
}

/** Where Gitea hosts the repository itself. */
function hostingSteps(
  { gitea, kubernetes }: Platform,
  { organisation, operatorKeys, access }: Record<'organisation' | 'operatorKeys' | 'access', AnyStep>,
) {
  const repository = repositoryStep(gitea, [organisation, operatorKeys])
  const secret = webhookSecretStep(kubernetes, { needs: [access] })
  return {
    secret,
    repository,
    deployKey: deployKeyStep(gitea, [repository, access]),
    webhook: webhookStep(gitea, kubernetes, { needs: [repository, secret] }),
  }
}
