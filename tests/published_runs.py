"""Small finished runs of each family, to be carded and pushed."""

from pathlib import Path
from typing import Any

from decoders import writing_recipe
from encoder_decoders import pairs_recipe
from reviews import small_recipe

from finetune.recipe import parse_recipe
from finetune.training import train

FAMILIES = ("encoder", "bilstm-stacked", "writer", "lora", "answerer")
"""An encoder, a recurrent classifier, one that writes, a decoder by LoRA, a recurrent encoder and decoder."""


def train_run(directory: Path, family: str) -> Path:
    """Train a run of a family in seconds; returns its directory."""
    if family in ("writer", "lora"):
        tree: dict[str, Any] = writing_recipe(directory, "lstm" if family == "writer" else "gpt2")
        tree["name"] = family
        tree["training"] |= {"num_train_epochs": 20, "eval_steps": 20}
        tree["generation"] = {"samples": 8, "max_new_tokens": 24}
        if family == "lora":
            tree["model"] |= {"tuning": "lora"}
        return train(parse_recipe(tree)).path
    if family == "answerer":
        tree = pairs_recipe(directory, "lstm-general", training={"num_train_epochs": 20, "eval_steps": 20})
        return train(parse_recipe(tree | {"name": family})).path
    model: Any = {"family": family} if family in ("majority", "tfidf") else family
    return train(small_recipe(directory, model, name=family)).path
