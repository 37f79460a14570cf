// Ansible's inventory, rendered from Terraform's outputs.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { writeWhole } from './files.ts'
import type { Outputs } from './outputs.ts'
import { giteaDroplet, type Site } from './site.ts'

/** In the site's folder and not in ansible/: two sites of one checkout have two droplets. */
export const inventoryFile = ({ directory }: Pick<Site, 'directory'>) => join(directory, 'inventory.ini')

async function renderInventory(site: Site, { gitea }: Pick<Outputs, 'gitea'>): Promise<string> {
  const { renderTemplate } = await import('./templates.ts') // takes a while to load, and Terraform is at work meanwhile
  return renderTemplate('inventory.ini', { name: giteaDroplet(site), domain: site.domain, gitea })
}

export function inventoryStep(
  site: Site,
  outputs: () => Promise<Outputs>,
  { needs }: { needs?: readonly AnyStep[] } = {},
): Step {
  const file = inventoryFile(site)
  return step<Drift>({
    title: 'Ansible’s inventory names the droplet',
    ...(needs ? { needs } : {}),
    check: async () => {
      const wanted = await renderInventory(site, await outputs())
      return existsSync(file) && readFileSync(file, 'utf8') === wanted ? undefined : { lines: [`write ${file}`] }
    },
    apply: async () => writeWhole(file, await renderInventory(site, await outputs())),
  })
}
