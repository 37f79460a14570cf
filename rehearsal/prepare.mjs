// Makes node_modules what package-lock.json says, before anything that needs it runs. Plain JavaScript without
// dependencies, because it runs first on a fresh clone.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const stamp = join(root, 'node_modules', '.prepared')

/** @param {string} line */
function stop(line) {
  console.error(line)
  process.exit(1)
}

if (Number.parseInt(process.versions.node, 10) < 20)
  stop(`Node 20 or newer was expected, found ${process.versions.node}. Next: install it, then run this again`)

// Some packages are binaries for one platform, so another machine's node_modules is not ours.
const wanted = createHash('sha256')
  .update(`${process.platform} ${process.arch}\n`)
  .update(readFileSync(join(root, 'package-lock.json')))
  .digest('hex')

if (stamped() !== wanted) install()

/** @returns {string | undefined} what node_modules was last made from */
function stamped() {
  try {
    return readFileSync(stamp, 'utf8')
  } catch {
    return undefined
  }
}

function install() {
  console.log('npm ci: node_modules is not yet what package-lock.json says')
  const started = Date.now()
  const npm = spawnSync('npm', ['ci', '--include=dev', '--no-audit', '--no-fund'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  if (npm.error) stop(`npm could not be started (${npm.error.message}). Next: install npm, it comes with Node`)
  if (npm.status !== 0) {
    process.stderr.write(npm.stdout + npm.stderr)
    stop(`npm ci ended with ${npm.status ?? npm.signal}, see above. Next: (cd '${root}' && npm ci)`)
  }
  // npm ci empties node_modules first: an interrupted one leaves no stamp.
  writeFileSync(stamp, wanted)
  console.log(`npm ci: done in ${((Date.now() - started) / 1000).toFixed(0)} s`)
}
