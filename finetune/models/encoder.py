"""BERT-family encoders with the head of a task: from a checkpoint, or from random weights."""

from collections.abc import Iterable, Sequence
from typing import Any

from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
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
from finetune.models.pretrained import check_fit, load_pretrained, set_dropout
from finetune.recipe import TEXT_TASKS, EncoderModel, Task


def head(task: Task, labels: Sequence[str]) -> dict[str, Any]:
    """What a configuration says of its head: a logit per label, or one rating; of a head over tokens nothing."""
    if task in TEXT_TASKS:
        return {}
    names = list(labels) or ["rating"]
    problem_types = {"classify": "single_label_classification", "multi_label": "multi_label_classification"}
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        # Without it the first labelled forward pass would write the problem type into the configuration.
        "problem_type": problem_types.get(task, "regression"),
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
        set_dropout(scratch, model.dropout)
        return BertForMaskedLM(scratch) if task == "masked_lm" else BertForSequenceClassification(scratch)

    def prepare(config: PreTrainedConfig, name: str) -> None:
        if task in ("classify", "multi_label"):
            _check_label_order(config, labels, name)
        config.update(names)
        set_dropout(config, model.dropout)

    encoder, loading = load_pretrained(
        model,
        AutoModelForMaskedLM if task == "masked_lm" else AutoModelForSequenceClassification,
        MODEL_FOR_MASKED_LM_MAPPING if task == "masked_lm" else MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        "masked language-model" if task == "masked_lm" else "classification",
        prepare,
        attention,
    )
    check_fit(encoder, tokenizer, max_length, str(model.model_name_or_path))
    if model.tuning == "frozen":
        _freeze(encoder, loading)
    return encoder


def _freeze(encoder: PreTrainedModel, loading: dict[str, Any]) -> None:
    """Train nothing but what the checkpoint lacks and what is no part of the encoder: the pooler perhaps, the head."""
    drawn = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad = name in drawn or not name.startswith(f"{encoder.base_model_prefix}.")


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
