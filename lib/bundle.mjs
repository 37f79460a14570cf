// Makes one file of a runbook and every package that it needs. The launcher does so at a first start; for the image of the
// scheduled runbooks it is done beforehand: `node bundle.mjs FOLDER RUNBOOK...`
import { realpathSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

/**
 * @param {string} runbook path of its .mts file
 * @param {string} outfile path of the file to make
 */
export async function bundleRunbook(runbook, outfile) {
  await build({
    entryPoints: [runbook],
    outfile,
    bundle: true,
    minify: true,
    sourcemap: 'linked',
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    supported: { 'dynamic-import': false }, // V8's cache does not go with it
    mainFields: ['module', 'main'],
    external: ['pg-native', 'cpu-features', '*.node'], // none of them has to be there
    define: { 'import.meta.url': 'importMetaUrl' },
    banner: { js: `const importMetaUrl = require('node:url').pathToFileURL(__filename).href;` },
    logLevel: 'error',
  })
}

const [, started, folder = '', ...runbooks] = process.argv
if (started && realpathSync(started) === fileURLToPath(import.meta.url))
  for (const runbook of runbooks) await bundleRunbook(runbook, join(folder, `${basename(runbook, '.mts')}.cjs`))
