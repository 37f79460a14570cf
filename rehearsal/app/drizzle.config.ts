// Where drizzle-kit finds the tables, and where it writes the migrations to: `npm run generate`.
import { defineConfig } from 'drizzle-kit'

export default defineConfig({ dialect: 'postgresql', schema: './src/schema.ts', out: './src/migrations' })
