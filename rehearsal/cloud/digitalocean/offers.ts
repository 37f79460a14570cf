// Regions and sizes, as anybody may look them up.
import { type Route, route } from '../http.ts'
import type { Account } from './account.ts'
import { page } from './api.ts'
import { REGIONS, regionBody, SIZES, sizeBody } from './catalog.ts'

export const offerRoutes = (account: Account): Route[] => [
  route('GET', '/v2/regions', (request) => page('regions', REGIONS.map(regionBody), request, account.base())),
  route('GET', '/v2/sizes', (request) => page('sizes', SIZES.map(sizeBody), request, account.base())),
]
