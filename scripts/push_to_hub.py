"""Prove a run's files, then push them to the Hugging Face Hub.

    python scripts/push_to_hub.py runs/nsmc-bilstm --repo user/nsmc-bilstm --dry_run

The same as `finetune push`.
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["push", *sys.argv[1:]]))
