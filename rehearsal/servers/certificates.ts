// The rehearsal's own certificate authority, and certificates for servers on loopback.
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
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

/** For servers on loopback. */
export const LOOPBACK: CertificateRequest = { file: 'server', names: ['localhost'], addresses: ['127.0.0.1'] }

export type CertificateRequest = {
  /** name of its files, without an ending */
  file: string
  names: readonly string[]
  addresses: readonly string[]
  subject?: string
}

/** Makes a certificate, for servers and for clients, signed by the authority. */
export async function issueCertificate(
  authority: Authority,
  folder: string,
  { file, names, addresses, subject = '/CN=localhost' }: CertificateRequest,
): Promise<Certificate> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const [certificate, key, request, extensions] = ['crt', 'key', 'csr', 'ext'].map((end) =>
    join(folder, `${file}.${end}`),
  ) as [string, string, string, string]
  const alternatives = [...addresses.map((one) => `IP:${one}`), ...names.map((one) => `DNS:${one}`)]
  await writeFile(
    extensions,
    [
      ...(alternatives.length > 0 ? [`subjectAltName=${alternatives.join(',')}`] : []),
      'basicConstraints=critical,CA:FALSE',
      'extendedKeyUsage=serverAuth,clientAuth',
      '',
    ].join('\n'),
  )
  await run(authority.openssl, ['req', ...newKey, '-keyout', key, '-out', request, '-subj', subject])
  await run(authority.openssl, [
    ...['x509', '-req', '-in', request, '-out', certificate, '-days', DAYS, '-extfile', extensions],
    ...['-CA', authority.certificate, '-CAkey', authority.key, '-set_serial', `0x${randomBytes(16).toString('hex')}`],
  ])
  return { certificate, key }
}

/** Makes a key pair that needs no certificate: file.key and file.pub. */
export async function issueKeyPair({ openssl }: Authority, folder: string, file: string): Promise<void> {
  const key = join(folder, `${file}.key`)
  await run(openssl, ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', key])
  await run(openssl, ['pkey', '-in', key, '-pubout', '-out', join(folder, `${file}.pub`)])
}
