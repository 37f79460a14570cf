// Starts a runbook: `node launch.mjs RUNBOOK [ARGUMENT...]`; the runbooks' first line calls it. TypeScript and packages
// are bundled once into one file under node_modules/.cache, since reading some 1,000 files takes three times as long as
// what a runbook with nothing to do has to do; and what V8 has made of that file is kept, which is half of the rest.
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { Script } from 'node:vm'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const runbook = realpathSync(process.argv[2] ?? '')

/** @param {string} words what was expected, found, and what to do next */
function stop(words) {
  process.stderr.write(`error: ${words}\n`)
  process.exit(64)
}

if (Number.parseInt(process.versions.node, 10) < 20)
  stop(`Node 20 or newer was expected, this is ${process.versions.node}. Next: install it with your package manager`)
if (!existsSync(join(root, 'node_modules', 'esbuild')))
  stop(`the packages that the runbooks need are not installed. Next: (cd '${root}' && npm ci)`)

const cache = join(root, 'node_modules', '.cache', 'runbooks')
const name = basename(runbook, '.mts')
const bundle = join(cache, `${name}-${signature()}`, `${name}.cjs`)
if (!existsSync(bundle)) await build(bundle)
process.argv.splice(1, 2, bundle)
if (process.argv.includes('--verbose')) {
  process.setSourceMapsEnabled(true) // of which V8's own cache knows nothing
  await import(pathToFileURL(bundle).href)
} else runCompiled()

/** Runs the bundle from what V8 compiled it to, which the first run that goes to its end leaves for those after it. */
function runCompiled() {
  const kept = `${bundle}.v8`
  const cachedData = intact(kept)
  const source = readFileSync(bundle, 'utf8').replace(/^#!.*/, '')
  const script = new Script(`(function (exports, require, module, __filename, __dirname) {${source}\n})`, {
    filename: bundle,
    ...(cachedData && { cachedData }),
  })
  if (!cachedData || script.cachedDataRejected)
    process.on('exit', (code) => {
      // It holds only the functions that were called.
      if (code !== 0 || process.argv.includes('--help')) return
      const compiled = script.createCachedData()
      replace(kept, Buffer.concat([checksum(compiled), compiled]))
    })
  const own = { exports: {} }
  script.runInThisContext()(own.exports, createRequire(bundle), own, bundle, dirname(bundle))
}

/** @param {Buffer} content */
function checksum(content) {
  return createHash('sha256').update(content).digest()
}

/**
 * V8 itself dies of a cache that is damaged, so its checksum comes before it.
 *
 * @param {string} file
 * @returns {Buffer | undefined} undefined where it is not there, or not as it was written
 */
function intact(file) {
  try {
    const whole = readFileSync(file)
    const content = whole.subarray(32)
    return checksum(content).equals(whole.subarray(0, 32)) ? content : undefined
  } catch {
    return undefined
  }
}

/**
 * Puts a file in place at once: another run may be reading it.
 *
 * @param {string} file
 * @param {Buffer} content
 */
function replace(file, content) {
  const temporary = `${file}-${process.pid}`
  try {
    writeFileSync(temporary, content)
    renameSync(temporary, file)
  } catch {
    rmSync(temporary, { force: true }) // the next run starts as slowly as this one, and that is all
  }
}

/** @returns {string} changes with every source file and every package, without reading them */
function signature() {
  const hash = createHash('sha256').update(`${process.version} ${process.arch}`)
  for (const folder of ['lib', 'runbooks'])
    for (const name of readdirSync(join(root, folder)).sort()) {
      const { mtimeMs, size } = statSync(join(root, folder, name))
      hash.update(`${folder}/${name} ${mtimeMs} ${size}\n`)
    }
  hash.update(String(statSync(join(root, 'package-lock.json')).mtimeMs))
  return hash.digest('hex').slice(0, 16)
}

/**
 * Bundles the runbook, and puts it in place at once: another run may be doing the same.
 *
 * @param {string} wanted
 */
async function build(wanted) {
  const { bundleRunbook } = await import('./bundle.mjs')
  mkdirSync(cache, { recursive: true })
  const folder = mkdtempSync(join(cache, 'new-'))
  await bundleRunbook(runbook, join(folder, basename(wanted)))
  for (const old of readdirSync(cache)) {
    const path = join(cache, old)
    const made = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now() // another build has renamed its own
    if (path !== folder && Date.now() - made > 86_400_000) rmSync(path, { recursive: true, force: true })
  }
  try {
    renameSync(folder, dirname(wanted))
  } catch (error) {
    rmSync(folder, { recursive: true, force: true })
    if (!existsSync(wanted)) throw error
  }
}
