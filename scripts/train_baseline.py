"""Train a baseline from scratch (RNN, LSTM, GRU) or a floor (majority, TF-IDF) from a recipe.

    python scripts/train_baseline.py nsmc-bilstm --training.learning_rate 1e-3
    accelerate launch scripts/train_baseline.py nsmc-bilstm
    torchrun --nproc_per_node 2 scripts/train_baseline.py nsmc-bilstm

The same as `finetune train`; `--help` lists every field of the recipe.
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
