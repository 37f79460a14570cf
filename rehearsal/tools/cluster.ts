// What real clusters and droplets need on this machine, and where they can be.
import { Failure } from '../../lib/failure.ts'
import { platformArchive } from '../cluster/platform-images.ts'
import { runbooksArchive } from '../cluster/runbooks-image.ts'
import { type DropletImages, dropletImages } from '../droplet/images.ts'
import { type DropletRoot, makeDropletRoot } from '../droplet/root.ts'
import { CLUSTER_TOOLS, installTools } from '../tools.ts'
import { type Machine, thisMachine } from './machine.ts'

/**
 * As the cloud is told: a folder of programs, OCI archives of what runs on clusters from the start, the runbooks' among
 * them, and what droplets are made of.
 */
export type ClusterTools = { programs: string; images: string[]; runbooksImage: string; droplet: DropletTools }

/** Its programs are those of the cloud's that serve it. */
export type DropletTools = DropletRoot & { programs: string; images: DropletImages }

/** @returns why no real cluster can be on this machine; undefined where one can */
export function clusterObstacle(machine: Machine): string | undefined {
  if (process.platform !== 'linux') return `this is ${process.platform}: a real cluster needs Linux, and root`
  return machine.isRoot ? undefined : 'this is not root: a real cluster makes networks, mounts and control groups'
}

/** Throws a Failure where no real cluster can be. */
export function checkClusterPossible(machine: Machine = thisMachine()): void {
  const found = clusterObstacle(machine)
  if (found)
    throw new Failure({
      found,
      expected: 'Linux and root, for --full; all else is rehearsed without',
      next: 'npm run rehearse',
    })
}

/**
 * Installs what is missing: some ten minutes once.
 *
 * @param report told what is installed and why, line by line
 */
export async function installClusterTools(
  report: (line: string) => void,
  machine: Machine = thisMachine(),
): Promise<ClusterTools> {
  checkClusterPossible(machine)
  const wanted = [...CLUSTER_TOOLS, 'ansible'] as const
  const { clusterPrograms: programs, dropletPrograms } = await installTools(report, wanted, machine)
  const platform = await platformArchive(machine, programs, report)
  const runbooks = await runbooksArchive(machine, programs, report)
  const root = await makeDropletRoot(machine, dropletPrograms, report)
  const images = await dropletImages(machine, dropletPrograms, runbooks.image, report)
  const droplet = { ...root, programs: dropletPrograms, images }
  return { programs, images: [platform, runbooks.archive], runbooksImage: runbooks.image.reference, droplet }
}
