// What Terraform has made, as the runbooks need it: its outputs, and what of them a pod is given in a file.
import { readFileSync } from 'node:fs'
import * as z from 'zod'
import { GITEA_POSTGRES_FILE, POSTGRES_FILE } from './credentials.ts'
import { Failure } from './failure.ts'
import { Secret } from './secret.ts'
import { readObject } from './spaces.ts'
import { argv, command, notThere, STATE_KEY, type Terraform } from './terraform.ts'

/** The only version of the state that Terraform and OpenTofu have written since 2019. */
const stateSchema = z.object({ version: z.literal(4), outputs: z.record(z.string(), z.unknown()) })

const postgresSchema = z.object({
  host: z.string(),
  port: z.number(),
  user: z.string(),
  password: z.string().transform((text) => new Secret(text)),
  database: z.string(),
  ca: z.string(),
})

const giteaPostgresSchema = postgresSchema.extend({ admin: postgresSchema.pick({ user: true, password: true }) })

const outputsSchema = z.object({
  cluster: z.object({ value: z.object({ id: z.string() }) }),
  postgres: z.object({ value: postgresSchema }),
  valkey_url: z.object({ value: z.string().transform((text) => new Secret(text)) }),
  gitea: z.object({ value: z.object({ id: z.string(), ip: z.string(), private_ip: z.string() }) }),
  gitea_postgres: z.object({ value: giteaPostgresSchema }),
})

export type Outputs = {
  cluster: { id: string }
  postgres: z.infer<typeof postgresSchema>
  valkeyUrl: Secret
  gitea: { id: string; ip: string; private_ip: string }
  /** Gitea's own */
  giteaPostgres: z.infer<typeof giteaPostgresSchema>
}

/**
 * @param variable of the environment, which names the file
 * @param output of Terraform, of which the file has what `terraform output -json` prints
 * @returns where a Postgres is; throws a Failure where the file does not say it
 */
function readServerFile(file: string, variable: string, output: string): Outputs['postgres'] {
  try {
    return postgresSchema.parse(JSON.parse(readFileSync(file, 'utf8')))
  } catch {
    throw new Failure({
      found: `${file} does not say where Postgres is`,
      expected: `what \`terraform output -json ${output}\` prints, in the file that ${variable} names`,
      next: './runbooks/bootstrap.mts, which makes it anew',
    })
  }
}

export const readPostgresFile = (file: string) => readServerFile(file, POSTGRES_FILE, 'postgres')
export const readGiteaPostgresFile = (file: string) => readServerFile(file, GITEA_POSTGRES_FILE, 'gitea_postgres')

/** @returns what the runbooks need of the infrastructure; throws when it is not there yet */
export async function readOutputs(terraform: Terraform): Promise<Outputs> {
  const { run } = terraform
  if (!terraform.state) throw notThere(run)
  // The state holds them just as `output` prints them, and asking the program takes several times as long.
  const state = stateSchema.safeParse(
    JSON.parse((await readObject(await run.spaces(), run.site.buckets.state, STATE_KEY)) ?? 'null'),
  )
  const outputs = outputsSchema.safeParse(
    state.success ? state.data.outputs : JSON.parse((await command(terraform, argv.output(), { shown: false })).stdout),
  )
  if (!outputs.success) throw notThere(run)
  const { cluster, postgres, valkey_url, gitea, gitea_postgres } = outputs.data
  return {
    ...{ cluster: cluster.value, postgres: postgres.value, valkeyUrl: valkey_url.value },
    ...{ gitea: gitea.value, giteaPostgres: gitea_postgres.value },
  }
}
