"""BERT-family encoders with a classification head: fine-tuned from a checkpoint, or from random weights."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune.errors import UserError
from finetune.recipe import EncoderModel

# The names under which architectures keep their dropout rates.
_DROPOUT_NAMES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
)


def head(labels: Sequence[str]) -> dict[str, Any]:
    """What a configuration says of its head: a logit per label, or, without labels, one rating."""
    names = list(labels) or ["rating"]
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        # Without it the first labelled forward pass would write the problem type into the configuration.
        "problem_type": "single_label_classification" if labels else "regression",
    }


def build_encoder(
    model: EncoderModel, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, attention: str
) -> PreTrainedModel:
    """An encoder that gives one logit per label, or, without labels, one rating.

    Its head (from scratch: all of it) is drawn from torch's seed.

    Raises:
        UserError: the checkpoint cannot be had, or is too small for `max_length` or for the tokenizer.
    """
    # A num_labels that conflicts with the names would silently reset the names, so only the names are given.
    names = head(labels)
    if model.from_scratch is not None:
        values: dict[str, Any] = model.from_scratch.model_dump() | {"attn_implementation": attention}
        scratch = BertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=max_length,
            pad_token_id=tokenizer.pad_token_id,
            **values,
            **names,
        )
        _prepare(scratch, model)
        return BertForSequenceClassification(scratch)
    assert model.model_name_or_path is not None  # held by the recipe's own check
    try:
        config = AutoConfig.from_pretrained(
            model.model_name_or_path, revision=model.revision, attn_implementation=attention, **names
        )
        _prepare(config, model)
        encoder = AutoModelForSequenceClassification.from_pretrained(
            model.model_name_or_path,
            revision=model.revision,
            config=config,
            # A checkpoint may be stored in half precision; training in it loses small updates.
            dtype=torch.float32,
            # A head of another task has another number of labels; it is drawn anew.
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"model {model.model_name_or_path!r}: {' '.join(str(error).split())}") from None
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise UserError(
            f"text.max_length {max_length} is more than the {positions} positions of {config._name_or_path}"
        )
    rows = encoder.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens, the model embeds {rows}; they do not belong together"
        )
    return encoder


def _prepare(config: PreTrainedConfig, model: EncoderModel) -> None:
    if model.dropout is not None:
        for name in _DROPOUT_NAMES:
            if hasattr(config, name):
                setattr(config, name, model.dropout)
