"""`python -m finetune` is the `finetune` command."""

from finetune.cli import entry_point

if __name__ == "__main__":
    entry_point()
