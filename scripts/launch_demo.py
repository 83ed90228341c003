"""Show runs and models in the browser.

    python scripts/launch_demo.py runs/nsmc-bilstm runs/nsmc-kobert

The same as `finetune demo`.
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
