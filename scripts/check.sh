#!/usr/bin/env bash
# Every check, in the order in which a failure is cheapest to find. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${BIN:-.venv/bin}
tools=$(cd "${TOOLS:-.ogate-test}" && pwd)
export OGATE_TEST_OPENCODE="$tools/node_modules/.bin/opencode"
export OGATE_TEST_AIMOCK="$tools/node_modules/@copilotkit/aimock/dist/cli.js"

if [ $# -eq 0 ]; then
  "$bin/ruff" check .
  "$bin/ruff" format --check .
  "$bin/lint-imports"
  "$bin/mypy"
  BIN="$bin" scripts/generate.sh --check
fi
exec "$bin/python" -m pytest "$@"
