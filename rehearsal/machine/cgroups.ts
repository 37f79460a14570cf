// The control groups that all of a machine is under: made before it starts, and removed when nothing of it runs.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** Milliseconds that processes which were killed may take to be gone. */
const PATIENCE = 5_000

/** @returns the folders of a control group: with version 1 each controller has a tree of its own */
export function groupsOf(name: string): string[] {
  const root = '/sys/fs/cgroup'
  const trees = existsSync(join(root, 'cgroup.controllers')) ? ['.'] : readdirSync(root)
  return trees.map((tree) => join(root, tree, name))
}

/** The kubelet wants the group that its pods are under to be there already. */
export function makeCgroups(name: string): void {
  for (const group of groupsOf(name)) {
    mkdirSync(group, { recursive: true })
    for (const file of ['cpuset.cpus', 'cpuset.mems']) {
      const [own, parent] = [join(group, file), join(group, '..', file)]
      if (existsSync(own) && existsSync(parent) && readFileSync(own, 'utf8').trim() === '')
        writeFileSync(own, readFileSync(parent, 'utf8'))
    }
  }
}

/** Ends all that is in a control group, and in those inside of it, without asking. */
export async function killCgroup(name: string): Promise<void> {
  const group = groupsOf(name).find((path) => existsSync(join(path, 'cgroup.procs')))
  const processes = (folder: string): number[] => [
    // 0 is one that this process may not see.
    ...readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').map(Number).filter(Boolean),
    ...readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .flatMap((entry) => processes(join(folder, entry.name))),
  ]
  for (const end = Date.now() + PATIENCE; group && Date.now() < end; await sleep(20)) {
    const left = processes(group)
    if (left.length === 0) return
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {} // it has ended meanwhile
    }
  }
}

/** @param bytes that all of it may have; what it asks for beyond ends one of its processes */
export function limitMemory(name: string, bytes: number): void {
  for (const group of groupsOf(name))
    for (const file of ['memory.limit_in_bytes', 'memory.max'])
      if (existsSync(join(group, file))) writeFileSync(join(group, file), String(bytes))
}

/** Removes them with all that are inside; throws the system's error where something still runs in one. */
export async function removeCgroups(name: string): Promise<void> {
  for (const end = Date.now() + PATIENCE; ; await sleep(20)) {
    try {
      for (const group of groupsOf(name)) if (existsSync(group)) removeTree(group)
      return
    } catch (error) {
      if (Date.now() > end) throw error
    }
  }
}

/** Only from the innermost out. */
function removeTree(group: string): void {
  for (const entry of readdirSync(group, { withFileTypes: true }))
    if (entry.isDirectory()) removeTree(join(group, entry.name))
  rmdirSync(group)
}
