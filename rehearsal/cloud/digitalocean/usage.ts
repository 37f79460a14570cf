// What the account has used since the month began: what is planted, and its load balancers.
import { LOAD_BALANCER } from '../../../lib/prices.ts'
import type { LoadBalancer, State } from './state.ts'

/** DigitalOcean bills by the hour, and no month beyond its price. */
const HOURS = 672

/**
 * @param at milliseconds since 1970
 * @returns US dollars that it has cost in that month, each hour that has begun
 */
export function usageOf({ created_at, size_unit }: LoadBalancer, at = Date.now()): number {
  const now = new Date(at)
  const since = Math.max(Date.parse(created_at), Date.UTC(now.getUTCFullYear(), now.getUTCMonth()))
  const hours = Math.floor((at - since) / 3_600_000) + 1
  return (LOAD_BALANCER * size_unit * Math.min(hours, HOURS)) / HOURS
}

export const monthToDateUsage = (state: State) =>
  [...state.loadBalancers.values()].reduce((sum, balancer) => sum + usageOf(balancer), state.monthToDateUsage)
