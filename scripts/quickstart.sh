#!/usr/bin/env bash
# Set up, then run the main job on the embedded reviews: bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
exec .venv/bin/finetune quickstart "$@"
