"""Transfer learning with Hugging Face, proven against baselines, with error bars and a sealed test set."""

__version__ = "0.1.0"
