"""BERT-family encoders with the head of a task: from a checkpoint, or from random weights."""

import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune.errors import UserError
from finetune.recipe import EncoderModel, Task, local_name

# The names under which architectures keep their dropout rates.
_DROPOUT_NAMES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "pooler_dropout",
    "cls_dropout",
    "seq_classif_dropout",
    "summary_last_dropout",
)
LOADING_ERRORS = (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError)
"""What loading a checkpoint raises: not there, not reachable, not of this kind, damaged."""
_UNUSED_ROWS = 256
"""Embeddings are often padded to a round number of rows; DeBERTa-v3 has 99 more than its tokenizer has tokens."""


def head(task: Task, labels: Sequence[str]) -> dict[str, Any]:
    """What a configuration says of its head: a logit per label, or one rating; of a head over tokens nothing."""
    if task == "masked_lm":
        return {}
    names = list(labels) or ["rating"]
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        # Without it the first labelled forward pass would write the problem type into the configuration.
        "problem_type": "single_label_classification" if task == "classify" else "regression",
    }


def build_encoder(
    model: EncoderModel,
    task: Task,
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    attention: str,
) -> PreTrainedModel:
    """An encoder that gives one logit per label, one rating, or the logits of every token's place.

    Its head (from scratch: all of it) is drawn from torch's seed, unless the checkpoint has one for as many labels.

    Raises:
        UserError: the checkpoint cannot be had, or is too small for `max_length` or for the tokenizer.
    """
    # A num_labels that conflicts with the names would silently reset the names, so only the names are given.
    names = head(task, labels)
    if model.from_scratch is not None:
        sizes = model.from_scratch.model_dump(exclude={"initial_embeddings"})
        values: dict[str, Any] = sizes | {"attn_implementation": attention}
        scratch = BertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=max_length,
            pad_token_id=tokenizer.pad_token_id,
            **values,
            **names,
        )
        _prepare(scratch, model)
        return BertForMaskedLM(scratch) if task == "masked_lm" else BertForSequenceClassification(scratch)
    name = model.model_name_or_path
    assert name is not None  # held by the recipe's own check
    local = local_name(name)
    try:
        config = AutoConfig.from_pretrained(local, revision=model.revision)
        if task == "classify":
            _check_label_order(config, labels, name)
        config.update(names)
        _prepare(config, model)
        auto_class: Any = AutoModelForMaskedLM if task == "masked_lm" else AutoModelForSequenceClassification
        encoder, loading = auto_class.from_pretrained(
            local,
            revision=model.revision,
            config=config,
            attn_implementation=_attention(config, task, attention, name),
            # A checkpoint may be stored in half precision; training in it loses small updates.
            dtype=torch.float32,
            # A head for another number of labels is drawn anew.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except LOADING_ERRORS as error:
        raise UserError(f"model {name!r}: {' '.join(str(error).split())}") from None
    _check_weights(encoder, loading, name)
    _check_tokenizer(encoder, tokenizer, name)
    positions = max_positions(encoder)
    if positions is not None and max_length > positions:
        raise UserError(f"text.max_length {max_length} is more than the {positions} positions of {name}")
    if model.tuning == "frozen":
        _freeze(encoder, loading)
    return encoder


def _freeze(encoder: PreTrainedModel, loading: dict[str, Any]) -> None:
    """Train nothing but what the checkpoint lacks and what is no part of the encoder: the pooler perhaps, the head."""
    drawn = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad = name in drawn or not name.startswith(f"{encoder.base_model_prefix}.")


def max_positions(model: PreTrainedModel) -> int | None:
    """The longest sequence that a model has positions for, in tokens; None where its configuration does not say."""
    table, configured = _position_table(model), getattr(model.config, "max_position_embeddings", None)
    limits = [configured] if configured is not None and configured > 0 else []  # XLNet says -1
    if table is not None:
        limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    return min(limits, default=None)


def _position_table(model: PreTrainedModel) -> nn.Embedding | None:
    """The learnt positions, where there are any; RoBERTa's begin behind its padding index."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _check_label_order(config: PreTrainedConfig, labels: Sequence[str], name: str) -> None:
    """A head that was trained on the same labels in another order would begin with their meanings exchanged."""
    names: Any = config.id2label or {}
    own = [str(names[i]) for i in sorted(names)]
    theirs, ours = [label.casefold() for label in own], [label.casefold() for label in labels]
    if sorted(theirs) == sorted(ours) and theirs != ours:
        raise UserError(
            f"model {name!r} has the labels {_in_order(own)}, the data {_in_order(labels)}; "
            "give data.labels in the model's order"
        )


def _in_order(labels: Iterable[str]) -> str:
    return ", ".join(f"{number} {label}" for number, label in enumerate(labels))


def _attention(config: PreTrainedConfig, task: Task, attention: str, name: str) -> str:
    """What was asked for, or eager attention where the architecture has nothing else (DeBERTa)."""
    mapping: Any = MODEL_FOR_MASKED_LM_MAPPING if task == "masked_lm" else MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if type(config) not in mapping:
        what = "masked language-model" if task == "masked_lm" else "classification"
        raise UserError(f"model {name!r}: transformers has no {what} head for {config.model_type}")
    architecture: Any = mapping[type(config)]
    return "eager" if attention == "sdpa" and not architecture._supports_sdpa else attention


def _check_weights(encoder: PreTrainedModel, loading: dict[str, Any], name: str) -> None:
    """What the checkpoint lacks begins at random: right for the head, and for a pooler, never for the encoder."""
    lacking = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    body = sorted(key for key in lacking if key.startswith(f"{encoder.base_model_prefix}.") and "pooler" not in key)
    if body:
        raise UserError(
            f"model {name!r}: {len(body)} tensors of the encoder are missing there or have another shape, such as "
            f"{body[0]}; they would start from random values. Is it a checkpoint of {encoder.config.model_type}?"
        )


def _check_tokenizer(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    try:
        embeddings: Any = encoder.get_input_embeddings()
    except NotImplementedError:
        return  # CANINE reads characters
    rows = len(embeddings.weight)
    if len(tokenizer) > rows or rows - len(tokenizer) > max(_UNUSED_ROWS, rows // 20):
        raise UserError(
            f"the tokenizer has {len(tokenizer):,} tokens, {name} embeds {rows:,}; they do not belong together"
        )
    table = _position_table(encoder)
    if table is not None and table.padding_idx not in (None, tokenizer.pad_token_id):
        # RoBERTa counts positions from the padding index.
        raise UserError(
            f"the tokenizer pads with id {tokenizer.pad_token_id}, {name} with {table.padding_idx}; they do not belong "
            "together"
        )


def _prepare(config: PreTrainedConfig, model: EncoderModel) -> None:
    if model.dropout is not None:
        for name in _DROPOUT_NAMES:
            if hasattr(config, name):
                setattr(config, name, model.dropout)
