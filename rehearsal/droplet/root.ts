// The root file system of the rehearsal's droplets, and the packages that may be installed on them: both made once, with
// apt's own tools, into the cache. A droplet of the rehearsal has no way out, so its only package source is that pool.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Machine } from '../tools/machine.ts'
import { run } from '../tools/run.ts'
import { COMPOSE_PACKAGE } from './programs.ts'

/** Debian stands in for Ubuntu 24.04, whose packages the machine's own sources do not have. */
const RELEASE = 'bookworm'

/** What a new droplet has. */
const ROOT_PACKAGES = [
  ...['systemd', 'systemd-sysv', 'dbus', 'libpam-systemd', 'openssh-server', 'sudo', 'python3', 'python3-apt'],
  ...['apt-utils', 'ca-certificates', 'iproute2', 'iputils-ping', 'kmod', 'procps', 'less', 'cron', 'tzdata'],
]

/** What ansible/ installs on it; Docker Compose is put to it. */
const POOL_PACKAGES = [
  ...['docker.io', 'nftables', 'unattended-upgrades', 'postgresql-client', 'age', 'zstd', 'git', 'curl', 'openssl'],
]

/** A droplet makes its host keys when it first starts, and not before. */
const HOST_KEYS = '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n'

/** Docker makes control groups of its own, as on a droplet; systemd-nspawn lets nobody write there. */
const CGROUPS = `[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for group in /sys/fs/cgroup /sys/fs/cgroup/*; do mountpoint -q $group && mount -o remount,rw,bind $group; done; true'
`

/** Nothing of it is for a machine that is not one: consoles, and what waits for hardware. */
const MASKED = [
  ...['console-getty.service', 'getty@tty1.service', 'getty-static.service', 'systemd-udev-trigger.service'],
  ...['apt-daily.timer', 'apt-daily-upgrade.timer', 'e2scrub_all.timer', 'fstrim.timer'],
]

/** Where the pool is found on a droplet. */
export const POOL = '/srv/pool'

const FILES = {
  '/etc/systemd/system/ssh.service.d/host-keys.conf': HOST_KEYS,
  '/etc/systemd/system/control-groups.service': CGROUPS,
  '/etc/apt/sources.list': `deb [trusted=yes] file:${POOL} ./\n`,
}
const LINKS = { '/etc/systemd/system/sysinit.target.wants/control-groups.service': '../control-groups.service' }

/** When an image was made is some weeks ago, and so are its lists of packages. */
const BUILT = new Date('2026-01-01')

const identity = JSON.stringify([BUILT, RELEASE, ROOT_PACKAGES, POOL_PACKAGES, FILES, LINKS, MASKED])
const folderOf = ({ cache }: Machine, programs: string) => {
  const hash = createHash('sha256').update(identity + basename(programs))
  return join(cache, `droplet-${hash.digest('hex').slice(0, 16)}`)
}

export type DropletRoot = { root: string; pool: string }

/**
 * Makes it where it is not in the cache yet: one or two minutes once.
 *
 * @param programs folder of the programs that are built with Go
 * @param report told of what takes its time
 */
export async function makeDropletRoot(
  machine: Machine,
  programs: string,
  report: (line: string) => void,
): Promise<DropletRoot> {
  const folder = folderOf(machine, programs)
  if (existsSync(folder)) return { root: join(folder, 'root'), pool: join(folder, 'pool') }
  mkdirSync(machine.cache, { recursive: true })
  const partial = mkdtempSync(`${folder}.`)
  try {
    const [root, pool] = [join(partial, 'root'), join(partial, 'pool')]
    report(
      `droplet: Debian ${RELEASE} for Gitea’s droplet, and what is installed on it, from its packages, once, in two minutes`,
    )
    await makeBoth(machine, root, { pool, compose: join(programs, COMPOSE_PACKAGE) })
    if (!existsSync(folder)) renameSync(partial, folder) // another may have made it meanwhile
  } finally {
    rmSync(partial, { recursive: true, force: true })
  }
  return { root: join(folder, 'root'), pool: join(folder, 'pool') }
}

/** The packages are fetched as soon as the root has all of its own: apt then tells what each of them needs besides. */
async function makeBoth(
  { environment }: Machine,
  root: string,
  { pool, compose }: { pool: string; compose: string },
): Promise<void> {
  const fetch = ['apt-get', '-q', '--download-only', '--no-install-recommends', '--yes', 'install', ...POOL_PACKAGES]
  const hooks = [
    `export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"; apt-get clean && ${fetch.join(' ')}`,
    'cd "$1"/var/cache/apt/archives && rm -rf partial lock',
    `cp '${compose}' "$1"/var/cache/apt/archives/`,
    'chroot "$1" sh -c "cd /var/cache/apt/archives && apt-ftparchive packages . >Packages"',
    `mv "$1"/var/cache/apt/archives ${pool}`,
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/var/lib/dbus/machine-id && : >"$1"/etc/machine-id',
    `chroot "$1" systemctl mask ${MASKED.join(' ')}`,
    'chroot "$1" passwd --lock root',
  ]
  await run(
    [
      ...['mmdebstrap', '--quiet', '--variant=minbase', `--include=${ROOT_PACKAGES.join(',')}`],
      ...['--dpkgopt=path-exclude=/usr/share/doc/*', '--dpkgopt=path-exclude=/usr/share/man/*'],
      ...hooks.map((hook) => `--customize-hook=${hook}`),
      ...[RELEASE, root],
    ],
    { environment },
  )
  const make = (path: string, write: (file: string) => void) => {
    const file = join(root, path)
    mkdirSync(dirname(file), { recursive: true })
    write(file)
  }
  for (const [path, text] of Object.entries(FILES)) make(path, (file) => writeFileSync(file, text))
  utimesSync(join(root, 'var/lib/apt/lists'), BUILT, BUILT)
  for (const [path, target] of Object.entries(LINKS)) make(path, (file) => symlinkSync(target, file))
}
