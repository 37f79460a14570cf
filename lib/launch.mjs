// Starts a runbook: `node launch.mjs RUNBOOK [ARGUMENT...]`; the runbooks' first line calls it. TypeScript and packages
// are bundled once into node_modules/.cache, since reading some 1,000 files takes three times as long as what a runbook
// with nothing to do has to do.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, renameSync, rmSync, statSync } from 'node:fs'
import * as modules from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

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
const bundle = join(cache, signature(), `${basename(runbook, '.mts')}.mjs`)
if (!existsSync(bundle)) await build(bundle)
if (process.argv.includes('--verbose')) process.setSourceMapsEnabled(true)
// Newer than Node 20, and worth some 50 ms where it is there.
if ('enableCompileCache' in modules)
  /** @type {{ enableCompileCache: (folder: string) => void }} */ (modules).enableCompileCache(cache)
process.argv.splice(1, 2, bundle)
await import(pathToFileURL(bundle).href)

/** @returns {string} changes with every source file and every package, without reading them */
function signature() {
  const hash = createHash('sha256').update(process.version)
  for (const folder of ['lib', 'runbooks'])
    for (const name of readdirSync(join(root, folder)).sort()) {
      const { mtimeMs, size } = statSync(join(root, folder, name))
      hash.update(`${folder}/${name} ${mtimeMs} ${size}\n`)
    }
  hash.update(String(statSync(join(root, 'package-lock.json')).mtimeMs))
  return hash.digest('hex').slice(0, 16)
}

/**
 * Bundles every runbook beside the others, and puts them in place at once: another run may be doing the same.
 *
 * @param {string} wanted
 */
async function build(wanted) {
  const { build } = await import('esbuild')
  mkdirSync(cache, { recursive: true })
  const folder = mkdtempSync(join(cache, 'new-'))
  const runbooks = join(root, 'runbooks')
  await build({
    entryPoints: readdirSync(runbooks).map((name) => join(runbooks, name)),
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    minifySyntax: true,
    minifyWhitespace: true,
    sourcemap: 'linked',
    platform: 'node',
    target: 'node20',
    format: 'esm',
    mainFields: ['module', 'main'],
    external: ['pg-native'],
    banner: {
      js: `import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);`,
    },
    logLevel: 'error',
  })
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
