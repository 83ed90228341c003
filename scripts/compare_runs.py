"""Compare runs that share their test rows: a table, curves and one HTML page.

    python scripts/compare_runs.py runs/nsmc-tfidf runs/nsmc-bilstm --output reports/nsmc

The same as `finetune compare`.
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
