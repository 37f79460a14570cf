// What restore may be told: a time, and the name of a new database.
import { customerName } from './customers.ts'
import { misuse } from './failure.ts'

/** Of Gitea, which no customer may be called. */
export const GITEA_NAME = 'gitea'

/** @param name of a customer, or Gitea's. Throws a misuse when it can be neither */
export const restorable = (name: string) => (name === GITEA_NAME ? name : customerName(name))

const TIME = /^(\d{4}-\d\d-\d\d)(?:T(\d\d)[:-](\d\d)(?:[:-](\d\d(?:\.\d+)?))?(Z|[+-]\d\d:\d\d)?)?$/

/** @param text a day or a time, in UTC unless it says otherwise. Throws a misuse when it is none */
export function parseTime(text: string): string {
  const [, day = '', hour, minute, second = '00', zone = 'Z'] = TIME.exec(text) ?? []
  const at = new Date(`${day}T${hour === undefined ? '23:59:59.999' : `${hour}:${minute}:${second}`}${zone}`)
  const isDay = !Number.isNaN(at.getTime()) && new Date(day).toISOString().startsWith(day) // no 30th of February
  if (!isDay)
    throw misuse({
      found: `--at ${JSON.stringify(text)}`,
      expected: 'a day or a time, such as 2026-11-24 or 2026-11-24T03:00:00Z',
      next: './runbooks/backups.mts --customer NAME, which shows them',
    })
  return at.toISOString()
}

/** @param name of a database. Throws a misuse when a restore may not be made into one of that name */
export function databaseName(name: string): string {
  if (
    !/^[a-z_][a-z0-9_]{0,62}$/.test(name) ||
    /^(customer_|pg_)|^(postgres|defaultdb|template[01]|_dodb|gitea)$/.test(name)
  )
    throw misuse({
      found: `--into ${JSON.stringify(name)}`,
      expected: 'a new database: lower-case letters, digits and underscores, and not one of the platform’s own names',
      next: 'leave it out, and a name is made',
    })
  return name
}
