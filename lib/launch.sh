#!/bin/sh
# Starts a runbook: `launch.sh RUNBOOK [ARGUMENT...]`, from any directory. The runbooks' first line calls it.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
loader=$root/node_modules/tsx/dist/loader.mjs
if ! command -v node >/dev/null || ! node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)'; then
  echo "Node 20 or newer was expected, found $(node --version 2>/dev/null || echo none). Next: install it, for example with your package manager" >&2
  exit 64
fi
if [ ! -f "$loader" ]; then
  echo "The packages that the runbooks need are not installed. Next: (cd '$root' && npm ci)" >&2
  exit 64
fi
exec node --import "$loader" "$@"
