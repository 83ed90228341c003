"""Training: a recipe becomes a run directory, through one loop for every family."""

from finetune.training.train import train

__all__ = ["train"]
