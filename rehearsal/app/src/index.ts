// The binary starts here.
import { main } from './main.ts'

await main(process.argv.slice(2))
