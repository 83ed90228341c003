"""Pretrain an encoder on text without labels, from a recipe.

    python scripts/pretrain.py mini-bert-ko --data.train_file reviews.txt
    accelerate launch scripts/pretrain.py mini-bert-ko --data.train_file reviews.txt

The same as `finetune pretrain`; `--help` lists every field of the recipe.
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
