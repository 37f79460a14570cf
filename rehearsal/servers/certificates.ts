// The rehearsal's own certificate authority, and certificates for servers on loopback.
import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Paths of PEM files. */
export type Certificate = { certificate: string; key: string }
export type Authority = Certificate & { pem: string; openssl: string }

const DAYS = '30'
const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc']

/** Makes a certificate authority in the folder. */
export async function createAuthority(folder: string, openssl: string): Promise<Authority> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const paths = { certificate: join(folder, 'ca.crt'), key: join(folder, 'ca.key') }
  await run(openssl, [
    ...['req', '-x509', ...newKey, '-keyout', paths.key, '-out', paths.certificate, '-days', DAYS],
    ...['-subj', '/CN=Rehearsed cloud CA', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
  ])
  return { ...paths, pem: await readFile(paths.certificate, 'utf8'), openssl }
}

/** Makes a certificate for 127.0.0.1 and localhost, signed by the authority. */
export async function issueCertificate(authority: Authority, folder: string): Promise<Certificate> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const paths = { certificate: join(folder, 'server.crt'), key: join(folder, 'server.key') }
  const extensions = join(folder, 'server.ext')
  await writeFile(
    extensions,
    'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n',
  )
  const request = join(folder, 'server.csr')
  await run(authority.openssl, ['req', ...newKey, '-keyout', paths.key, '-out', request, '-subj', '/CN=localhost'])
  await run(authority.openssl, [
    ...['x509', '-req', '-in', request, '-out', paths.certificate, '-days', DAYS, '-extfile', extensions],
    ...['-CA', authority.certificate, '-CAkey', authority.key, '-CAcreateserial'],
  ])
  return paths
}
