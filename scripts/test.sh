#!/usr/bin/env bash
# Set up, then run the tests: bash scripts/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh dev
# Files are shared out among the cores; four of them at most, since each worker holds torch.
exec .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
