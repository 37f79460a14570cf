// A customer's values file in the repository: rendered for a new customer, left alone where a person wrote it.
import type { AnyStep } from './converge.ts'
import { namesOf, readValues } from './customers.ts'
import { misuse } from './failure.ts'
import { fileStep, type Repository } from './repository.ts'
import type { Site } from './site.ts'
import { renderTemplate } from './templates.ts'

/**
 * @param tag pins the customer to an image; undefined: it follows the chart's
 * @param secretChecksum SHA-256 of the customer's Secret, 64 hexadecimal digits; undefined: pods outlive a change of it
 */
export const renderValues = (
  site: Pick<Site, 'image_repository'>,
  customer: string,
  tag: string | undefined,
  secretChecksum?: string,
): string =>
  renderTemplate('values.yaml', {
    customer,
    subdomain: customer,
    image_repository: site.image_repository,
    tag,
    existing_secret: namesOf(customer).slug,
    secret_checksum: secretChecksum,
  })

/** What the container registries take as a tag. */
export function imageTag(tag: string): string {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/.test(tag))
    throw misuse({
      found: `the image tag ${JSON.stringify(tag)}`,
      expected: 'letters, digits, dots, hyphens and underscores, at most 128',
      next: 'choose a tag that was pushed, such as a commit’s hash',
    })
  return tag
}

/** The line of a values file with the Secret's checksum, and all before it. */
const CHECKSUM = /^(secretChecksum:).*$/m

/**
 * @param options.tag pins the customer to an image
 * @param options.checksum of the customer's Secret
 */
export function valuesStep(
  repository: Repository,
  customer: string,
  options: { tag: string | undefined; checksum: () => Promise<string>; needs: readonly AnyStep[] },
) {
  const { site } = repository.run
  const { tag, needs } = options
  const path = `gitops/apps/${namesOf(customer).slug}/values.yaml`
  return fileStep(repository, {
    title: `${path} is in the repository`,
    path,
    message: (text) => (text === undefined ? `Add customer ${customer}` : `Customer ${customer} has another Secret`),
    needs,
    check: async (text) => {
      const checksum = await options.checksum()
      if (text === undefined) return renderValues(site, customer, tag, checksum)
      const { image, existingSecret, secretChecksum } = readValues(text, path, customer)
      if (tag && image.tag !== tag)
        throw misuse({
          found: `${path} has the image tag ${image.tag ?? 'of the chart'}`,
          expected: `${tag}; add-customer does not change a customer that is there`,
          next: `correct ${path} in the repository`,
        })
      // Whoever keeps the secrets in the file itself, or in another Secret, sees to it themselves.
      if (existingSecret !== namesOf(customer).slug || secretChecksum === checksum) return undefined
      return CHECKSUM.test(text)
        ? text.replace(CHECKSUM, `$1 "${checksum}"`)
        : `${text.replace(/\n*$/, '\n')}secretChecksum: "${checksum}"\n`
    },
  })
}
