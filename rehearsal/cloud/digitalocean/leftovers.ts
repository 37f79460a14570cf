// What a deleted cluster may leave behind and still cost, besides load balancers: volumes, snapshots. There are none yet.
import { type Route, route } from '../http.ts'
import type { Account } from './account.ts'
import { notFound, page } from './api.ts'

export const leftoverRoutes = (account: Account): Route[] =>
  (['volumes', 'snapshots'] as const).flatMap((kind) => [
    route('GET', `/v2/${kind}`, (request) => page(kind, [], request, account.base())),
    route('GET', `/v2/${kind}/:id`, () => {
      throw notFound()
    }),
  ])
