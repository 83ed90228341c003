"""Score a run or a model on a split or on a labelled file.

    python scripts/evaluate_run.py runs/nsmc-bilstm --data reviews.csv --output evaluations/reviews

The same as `finetune evaluate`.
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
