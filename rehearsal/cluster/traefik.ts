// Traefik, the ingress controller. Its Go module is not what its releases are built from: the web page is made by npm,
// one package of its own is missing, and some libraries of features that are not used here cannot be had from the module
// proxy. So a copy is built in which the files of source/ take their place: without the page, without basic and digest
// authentication, without ACME's DNS providers. What routes requests and ends TLS is Traefik's own.
import { cpSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { moduleFolder } from '../tools/go.ts'
import { run } from '../tools/run.ts'

/** Where go.mod pins the version, and source/ is. */
export const TRAEFIK_MODULE = fileURLToPath(new URL('traefik', import.meta.url))

/**
 * Lays the copy out.
 *
 * @param folder made anew
 * @param environment of Go
 * @returns the folder with its go.mod
 */
export async function traefikSource(go: string, folder: string, environment: NodeJS.ProcessEnv): Promise<string> {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const copies = { traefik: 'github.com/traefik/traefik/v3', lego: 'github.com/go-acme/lego/v5' }
  for (const [name, module] of Object.entries(copies)) {
    const copy = join(folder, name)
    cpSync(await moduleFolder(go, module, TRAEFIK_MODULE, environment), copy, { recursive: true })
    await run(['chmod', '-R', 'u+w', copy], { environment })
    cpSync(join(TRAEFIK_MODULE, 'source', name), copy, { recursive: true })
  }
  const traefik = join(folder, 'traefik')
  await run([go, 'mod', 'edit', `-replace=${copies.lego}=../lego`], { environment, cwd: traefik })
  return traefik
}
