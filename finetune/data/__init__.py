"""Rows in: a Hub id, a local file or the embedded set becomes `Splits` with an id, a text and a label per row."""

from finetune.data.splits import Splits, load_file, load_rows, load_splits

__all__ = ["Splits", "load_file", "load_rows", "load_splits"]
