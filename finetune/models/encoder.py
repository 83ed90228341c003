"""BERT-family encoders with the head of a task: from a checkpoint, or from random weights."""

from collections.abc import Iterable, Sequence
from typing import Any

from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoModel,
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
from finetune.models.adapters import add_lora
from finetune.models.layers import reinitialize_layers, train_last_layers
from finetune.models.pooled import PooledEncoderConfig, PooledEncoderForSequenceClassification, without_pooler
from finetune.models.pretrained import check_fit, load_pretrained, set_dropout
from finetune.recipe import TEXT_TASKS, EncoderModel, Task

_HIDDEN_DROPOUT = ("hidden_dropout_prob", "dropout", "mlp_dropout")
"""Where architectures keep the rate that their heads take where none is given for those."""


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
    is_pooled = model.pooling != "cls"
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
        if is_pooled:
            return PooledEncoderForSequenceClassification(_pooled_config(scratch, model, names))
        return BertForMaskedLM(scratch) if task == "masked_lm" else BertForSequenceClassification(scratch)

    def prepare(config: PreTrainedConfig, name: str) -> None:
        if task in ("classify", "multi_label"):
            _check_label_order(config, labels, name)
        config.update(names)
        # Fitted for other data, perhaps other labels.
        if hasattr(config, "neutral_band"):
            del config.neutral_band
        set_dropout(config, model.dropout)

    kind: tuple[Any, Any, str] = (
        AutoModelForSequenceClassification,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        "classification",
    )
    if task == "masked_lm":
        kind = AutoModelForMaskedLM, MODEL_FOR_MASKED_LM_MAPPING, "masked language-model"
    elif is_pooled:
        kind = AutoModel, MODEL_MAPPING, "encoder without a"
    encoder, loading = load_pretrained(model, *kind, prepare, attention)
    name = str(model.model_name_or_path)
    check_fit(encoder, tokenizer, max_length, name)
    drawn = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    # Before anything is put around it: an architecture draws its own weights.
    reinitialize_layers(encoder, model.reinitialized_layers, name)
    if is_pooled:
        encoder, drawn = _with_pooling(encoder, model, names), set()
    match model.tuning:
        case "frozen":
            _freeze(encoder, drawn)
        case "last_layers":
            train_last_layers(encoder, model.trained_layers, name)
        case "lora":
            return add_lora(encoder, model.lora, name, model.revision, _heads(encoder, drawn))
    return encoder


def _pooled_config(inner: PreTrainedConfig, model: EncoderModel, names: dict[str, Any]) -> PooledEncoderConfig:
    """Of a head that looks at all states; its dropout is that of the architecture's own head."""
    rates = (getattr(inner, name, None) for name in ("classifier_dropout", "seq_classif_dropout", *_HIDDEN_DROPOUT))
    rate = next((rate for rate in rates if rate is not None), 0.1)
    # Left out, it would be taken away from the encoder's, which then forgets to mask the padding.
    attention = inner._attn_implementation
    # A place of this machine, which transformers leaves out at the top alone.
    inner._name_or_path = ""
    return PooledEncoderConfig(
        encoder=inner, pooling=model.pooling, head_dropout=rate, attn_implementation=attention, **names
    )


def _with_pooling(encoder: PreTrainedModel, model: EncoderModel, names: dict[str, Any]) -> PreTrainedModel:
    if without_pooler(encoder.config):
        encoder.pooler = None  # type: ignore[assignment]
    return PooledEncoderForSequenceClassification(_pooled_config(encoder.config, model, names), encoder)


def _freeze(encoder: PreTrainedModel, drawn: set[str]) -> None:
    """Train nothing but what the checkpoint lacks and what is no part of the encoder: the pooler perhaps, the head."""
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad = name in drawn or not name.startswith(f"{encoder.base_model_prefix}.")


def _heads(encoder: PreTrainedModel, drawn: set[str]) -> list[str]:
    """The modules that begin at random, and so have to be trained and kept whole: the pooler perhaps, the head."""
    prefix = encoder.base_model_prefix
    names = [
        name for name, child in encoder.named_children() if name != prefix and any(True for _ in child.parameters())
    ]
    within = {".".join(name.split(".")[:2]) for name in drawn if name.startswith(f"{prefix}.")}
    return [*names, *sorted(within)]


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
