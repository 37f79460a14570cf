// Checks the whole checkout without running it: types, lint and format, Terraform's format, shell,
// Ansible. `npm run check`.
import { execFile, execFileSync } from 'node:child_process'
import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { oneLine, tell } from '../lib/failure.ts'
import { installTools } from './tools.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

type Check = { name: string; argv: string[]; next: string; env?: NodeJS.ProcessEnv }

const installed = (program: string) => join(ROOT, 'node_modules', '.bin', program)

/** @returns the files that git knows or would add, that end in .sh or say that a shell runs them */
function shellFiles(git: string): string[] {
  const listed = execFileSync(git, ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  return [...new Set(listed.split('\0'))].filter((file) => file && isShell(file))
}

function isShell(file: string): boolean {
  const path = join(ROOT, file)
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) return false
  if (file.endsWith('.sh')) return true
  const start = Buffer.alloc(100)
  const handle = openSync(path, 'r')
  readSync(handle, start)
  closeSync(handle)
  return /^#! *\S*\/((env +)?(ba|da|k)?sh)\b/.test(start.toString('latin1').split('\n', 1)[0] ?? '')
}

/** @returns whether it passed */
function runCheck({ name, argv, next, env = {} }: Check): Promise<boolean> {
  const [program = '', ...args] = argv
  const started = Date.now()
  return new Promise((resolve) => {
    execFile(
      program,
      args,
      { cwd: ROOT, env: { ...process.env, ...env }, maxBuffer: 64 * 1024 * 1024 },
      (error, stdout, stderr) => {
        const seconds = ((Date.now() - started) / 1000).toFixed(1)
        console.log(`${error ? 'FAILED' : 'ok    '} ${name.padEnd(28)} ${seconds} s`)
        if (error)
          console.log((stdout + stderr || error.message).trimEnd().replace(/^(?=.)/gm, '    ') + `\n    next: ${next}`)
        resolve(!error)
      },
    )
  })
}

async function main(): Promise<void> {
  const tools = await installTools(console.log, ['terraform', 'git', 'shellcheck', 'ansibleLint'])
  const { terraform, git, shellcheck, ansibleLint } = tools
  const checks: Check[] = [
    { name: 'types', argv: [installed('tsc'), '--noEmit'], next: 'npx tsc --noEmit' },
    {
      name: 'lint and format',
      argv: [installed('biome'), 'ci', '--colors=off', '.'],
      next: 'npx biome check --write .',
    },
    {
      name: 'format of terraform/',
      argv: [terraform, 'fmt', '-check', '-diff', '-recursive', 'terraform'],
      next: 'terraform fmt -recursive terraform',
    },
  ]
  if (existsSync(join(ROOT, 'ansible')))
    checks.push({
      name: 'ansible/, as for production',
      argv: [ansibleLint, '--offline', '--nocolor', '-q', '--profile=production', 'ansible/gitea.yml'],
      next: 'see above',
      env: {
        PATH: [dirname(ansibleLint), process.env.PATH].join(delimiter),
        ANSIBLE_CONFIG: join(ROOT, 'ansible/ansible.cfg'),
      },
    })
  const files = shellFiles(git)
  if (files.length > 0)
    checks.push({ name: `shell, ${files.length} files`, argv: [shellcheck, ...files], next: 'see above' })
  const results = await Promise.all(checks.map(runCheck))
  const passed = results.filter(Boolean).length
  console.log(`${passed} passed, ${results.length - passed} failed`)
  if (passed < results.length) process.exitCode = 1
}

main().catch((error) => {
  console.error(oneLine(tell(error)))
  console.log('0 passed, 1 failed')
  process.exitCode = 1
})
