#!/usr/bin/env bash
# Writes every generated document anew; with --check, fails if one is not as it would be written.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${BIN:-.venv/bin}/python
for script in build_completions build_docs build_ledger_reference build_provider_table; do
  "$python" "scripts/$script.py" "$@"
done
"$python" -m bench.report "$@"
