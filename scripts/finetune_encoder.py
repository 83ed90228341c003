"""Fine-tune a BERT-family encoder from a recipe.

    python scripts/finetune_encoder.py nsmc-kobert --training.learning_rate 1e-3
    accelerate launch scripts/finetune_encoder.py nsmc-kobert
    torchrun --nproc_per_node 2 scripts/finetune_encoder.py nsmc-kobert

The same as `finetune train`; `--help` lists every field of the recipe.
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
