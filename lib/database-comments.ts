// What a database's comment says of how it came about: by it another run knows what is in it.
import type { Backup } from './backups.ts'

/** While and after it is restored. */
export const comments = {
  restoring: ({ folder }: Backup) => `being restored from ${folder}`,
  restored: ({ folder }: Backup) => `restored from ${folder}, and compared`,
  /** its tables belong to the administrator */
  orphaned: ({ folder }: Backup) => `restored from ${folder}, and compared, without the customer’s role`,
  placed: ({ folder }: Backup) => `restored from ${folder}, and in the customer’s place`,
}

/** On a database from its final backup on, whatever its name is then: the next run knows by it what is saved. */
export const finalComment = (customer: string, folder: string) =>
  `customer ${customer} is removed; its final backup is ${folder}`

/** @returns the folder of the final backup that a database's comment names; undefined where it names none */
export const finalBackupIn = (customer: string, comment: string | null): string | undefined => {
  const beginning = finalComment(customer, '')
  return comment?.startsWith(`${beginning}database/${customer}/`) ? comment.slice(beginning.length) : undefined
}
