#!/usr/bin/env bash
# Set up, then run the tests: bash scripts/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh dev
# The demo is tested in a browser, which pip does not bring. It is installed where that asks nobody: by root, on Debian.
browser="${FINETUNE_CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}"
if [ -z "$browser" ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk) > /dev/null 2>&1 ||
    echo "test: Chromium could not be installed; the tests in a browser are skipped" >&2
fi
# Files are shared out among the cores; four of them at most, since each worker holds torch.
exec .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
