// What real clusters and droplets need on this machine, and where they can be.
import { Failure } from '../../lib/failure.ts'
import { platformArchive } from '../cluster/platform-images.ts'
import { runbooksArchive } from '../cluster/runbooks-image.ts'
import { type DropletRoot, makeDropletRoot } from '../droplet/root.ts'
import { CLUSTER_TOOLS, installTools } from '../tools.ts'
import { type Machine, thisMachine } from './machine.ts'

/**
 * As the cloud is told: a folder of programs, OCI archives of what runs on clusters from the start, the runbooks' among
 * them, and what droplets are made of.
 */
export type ClusterTools = { programs: string; images: string[]; runbooksImage: string; droplet: DropletRoot }

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
  const { clusterPrograms: programs } = await installTools(report, CLUSTER_TOOLS, machine)
  const platform = await platformArchive(machine, programs, report)
  const runbooks = await runbooksArchive(machine, programs, report)
  const droplet = await makeDropletRoot(machine, report)
  return { programs, images: [platform, runbooks.archive], runbooksImage: runbooks.reference, droplet }
}
