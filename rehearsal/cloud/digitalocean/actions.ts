// Actions: changes that take a while, and that a client asks about until they are done.
import { type Request, type Route, route } from '../http.ts'
import { type Account, readyAt } from './account.ts'
import { found, page } from './api.ts'
import { regionOf } from './catalog.ts'
import { type Action, now } from './state.ts'

/** What an action does, and to what. */
export type NewAction = Pick<Action, 'type' | 'resource_id' | 'resource_type' | 'region'> & { complete?: () => void }

/** Begins an action; it has its effect once its time has come. */
export function startAction(account: Account, request: Request, { complete, ...rest }: NewAction): Action {
  const action = {
    id: ++account.state.sequence,
    started_at: now(),
    ...rest,
    complete,
    failure: undefined,
    readyAt: readyAt(account, request),
  }
  account.state.actions.set(action.id, action)
  return action
}

/** Lets every action whose time has come have its effect. */
export function settleActions({ state }: Account): void {
  for (const action of state.actions.values())
    if (action.complete && Date.now() >= action.readyAt) {
      action.complete()
      action.complete = undefined
    }
}

/** @returns whether the action still runs */
export const inProgress = (action: Action) => Date.now() < action.readyAt

export const actionBody = (action: Action) => ({
  id: action.id,
  status: inProgress(action) ? 'in-progress' : action.failure === undefined ? 'completed' : 'errored',
  type: action.type,
  started_at: action.started_at,
  completed_at: inProgress(action) ? null : new Date(action.readyAt).toISOString().replace(/\.\d+Z$/, 'Z'),
  resource_id: action.resource_id,
  resource_type: action.resource_type,
  region: regionOf(action.region),
  region_slug: action.region,
})

export function actionRoutes(account: Account): Route[] {
  const { state } = account
  return [
    route('GET', '/v2/actions', (request) =>
      page('actions', [...state.actions.values()].map(actionBody), request, account.base()),
    ),
    route('GET', '/v2/actions/:id', (_request, { id }) => ({
      status: 200,
      body: { action: actionBody(found(state.actions.get(Number(id)))) },
    })),
  ]
}
