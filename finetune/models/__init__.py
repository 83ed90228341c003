"""Models: encoders, recurrent classifiers, and the floors below them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from finetune.errors import UserError
from finetune.models.encoder import build_encoder
from finetune.models.floors import Floor
from finetune.models.recurrent import RecurrentConfig, RecurrentForSequenceClassification
from finetune.recipe import EncoderModel, RecurrentModel

__all__ = ["Floor", "build_model", "load_model"]


def build_model(
    model: EncoderModel | RecurrentModel,
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    attention: str,
) -> PreTrainedModel:
    """The model that a recipe describes, ready to train; new weights are drawn from torch's seed."""
    if isinstance(model, EncoderModel):
        return build_encoder(model, labels, tokenizer, max_length, attention)
    config = RecurrentConfig(
        vocab_size=len(tokenizer),
        cell=model.cell,
        embedding_size=model.embedding_size,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.num_layers,
        bidirectional=model.bidirectional,
        pooling=model.pooling,
        dropout=model.dropout,
        token_dropout=model.token_dropout,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
        problem_type="single_label_classification",
    )
    return RecurrentForSequenceClassification(config)


def load_model(name_or_path: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A trained classifier of any family in float32, from a `model/` directory or the Hub.

    Raises:
        UserError: there is none, or it cannot be reached.
    """
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            str(name_or_path), revision=revision, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise UserError(f"model {str(name_or_path)!r}: {' '.join(str(error).split())}") from None
