#!/usr/bin/env bash
# Create .venv and install this project with pinned versions; quick when nothing has changed.
# Usage: bash scripts/setup.sh [EXTRA]        EXTRA: dev, demo, ...
# PYTHON names the interpreter, TORCH_INDEX_URL another source of torch (for example PyTorch's CPU-only index).
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  version="$("$python" --version 2>&1 || true)"
  echo "setup: Python 3.11 or newer is needed, $python is: ${version:-not found}. Set PYTHON=/path/to/python3.11" >&2
  exit 2
fi

extra="${1:-}"
wanted="$(cat pyproject.toml scripts/constraints.txt <(echo "${TORCH_INDEX_URL:-}") | sha256sum | cut -d ' ' -f 1)"
stamp=".venv/.installed${extra:+-$extra}"
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

echo "Setting up .venv, once: about 0.5 GB to download, 2 GB on disk, and 2 to 5 minutes, with a CPU build of torch."
echo "On Linux PyPI's own torch brings CUDA along, several GB more; TORCH_INDEX_URL=URL takes torch from another index."
[ -x .venv/bin/python ] || "$python" -m venv .venv
# Python compiles what is imported when it first is; of two gigabytes of packages that is a small part.
install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint scripts/constraints.txt)
if [ -n "${TORCH_INDEX_URL:-}" ]; then
  "${install[@]}" --index-url "$TORCH_INDEX_URL" torch
fi
"${install[@]}" --editable ".${extra:+[$extra]}"
echo "$wanted" > "$stamp"
