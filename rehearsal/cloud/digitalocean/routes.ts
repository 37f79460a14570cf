// All of DigitalOcean's API that the rehearsal has.
import type { Route } from '../http.ts'
import { type Account, accountRoutes } from './account.ts'
import { actionRoutes } from './actions.ts'
import { databaseRoutes } from './databases.ts'
import { dropletRoutes } from './droplets.ts'
import { firewallRoutes } from './firewalls.ts'
import { kubernetesRoutes } from './kubernetes.ts'
import { leftoverRoutes } from './leftovers.ts'
import { loadBalancerRoutes } from './load-balancers.ts'
import { offerRoutes } from './offers.ts'
import { projectRoutes } from './projects.ts'
import { reservedIpRoutes } from './reserved-ips.ts'
import { tagRoutes } from './tags.ts'
import { vpcRoutes } from './vpcs.ts'

export const digitalOceanRoutes = (account: Account): Route[] =>
  [
    ...[accountRoutes, offerRoutes, vpcRoutes, dropletRoutes, actionRoutes, reservedIpRoutes, firewallRoutes],
    ...[databaseRoutes, kubernetesRoutes, loadBalancerRoutes, projectRoutes, tagRoutes, leftoverRoutes],
  ].flatMap((routes) => routes(account))
