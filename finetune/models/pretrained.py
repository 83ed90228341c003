"""Checkpoints to start from: loaded in float32, in the attention asked for, and refused where they do not fit."""

import pickle
from collections.abc import Callable
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from finetune.errors import UserError
from finetune.recipe import TransformerModel, local_name

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
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "embed_dropout",
)
LOADING_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)
"""What loading a checkpoint raises: not there, not reachable, not of this kind, damaged."""
_UNUSED_ROWS = 256
"""Embeddings are often padded to a round number of rows; DeBERTa-v3 has 99 more than its tokenizer has tokens."""


def load_pretrained(
    model: TransformerModel,
    auto_class: Any,
    mapping: Any,
    what: str,
    prepare: Callable[[PreTrainedConfig, str], None],
    attention: str,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The checkpoint that a recipe names, with the head of `auto_class`, and what transformers said of its loading.

    `mapping` has the architectures with such a head, `what` is its name for people; `prepare` changes the configuration
    before the model is made.

    Raises:
        UserError: the checkpoint cannot be had, has no such head, or lacks weights that must not begin at random.
    """
    name = model.model_name_or_path
    assert name is not None  # held by the recipe's own check
    local = local_name(name)
    try:
        config = AutoConfig.from_pretrained(local, revision=model.revision, trust_remote_code=False)
        prepare(config, name)
        loaded, loading = auto_class.from_pretrained(
            local,
            revision=model.revision,
            config=config,
            attn_implementation=_attention(config, mapping, what, attention, name),
            # A checkpoint may be stored in half precision; training in it loses small updates.
            dtype=torch.float32,
            # A head for another number of labels is drawn anew.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            # Unless it is told, transformers asks at the terminal whether to run a repository's code.
            trust_remote_code=False,
        )
    except LOADING_ERRORS as error:
        raise UserError(f"model {name!r}: {' '.join(str(error).split())}") from None
    _check_weights(loaded, loading, name)
    return loaded, loading


def check_fit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, name: str) -> None:
    """Refuse a tokenizer that is another model's, and texts longer than the model has positions for.

    Raises:
        UserError: they do not belong together.
    """
    _check_tokenizer(model, tokenizer, name)
    positions = max_positions(model)
    if positions is not None and max_length > positions:
        raise UserError(f"text.max_length {max_length} is more than the {positions} positions of {name}")


def set_dropout(config: PreTrainedConfig, rate: float | None) -> None:
    """Set every dropout rate that an architecture has; None leaves the checkpoint's own."""
    if rate is not None:
        for name in _DROPOUT_NAMES:
            if hasattr(config, name):
                setattr(config, name, rate)


def max_positions(model: PreTrainedModel) -> int | None:
    """The longest sequence that a model has positions for, in tokens; None where its configuration does not say."""
    table, configured = _position_table(model), getattr(encoder_config(model), "max_position_embeddings", None)
    limits = [configured] if configured is not None and configured > 0 else []  # XLNet says -1
    if table is not None:
        limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    return min(limits, default=None)


def encoder_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The configuration of what reads the text, where a model around it has one of its own."""
    inner = getattr(model.config, "encoder", None)
    return inner if isinstance(inner, PreTrainedConfig) else model.config


def _position_table(model: PreTrainedModel) -> nn.Embedding | None:
    """The learnt positions, where there are any; RoBERTa's begin behind its padding index."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _attention(config: PreTrainedConfig, mapping: Any, what: str, attention: str, name: str) -> str:
    """What was asked for, or eager attention where the architecture has nothing else (DeBERTa)."""
    if type(config) not in mapping:
        raise UserError(f"model {name!r}: transformers has no {what} head for {config.model_type}")
    architecture: Any = mapping[type(config)]
    return "eager" if attention == "sdpa" and not architecture._supports_sdpa else attention


def _check_weights(model: PreTrainedModel, loading: dict[str, Any], name: str) -> None:
    """What the checkpoint lacks begins at random: right for a head, and for a pooler, never for what is below."""
    lacking = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    # A model without a head is all body.
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    body = sorted(key for key in lacking if key.startswith(prefix) and "pooler" not in key)
    if body:
        raise UserError(
            f"model {name!r}: {len(body)} tensors of the model are missing there or have another shape, such as "
            f"{body[0]}; they would start from random values. Is it a checkpoint of {model.config.model_type}?"
        )


def _check_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    try:
        embeddings: Any = model.get_input_embeddings()
    except NotImplementedError:
        return  # CANINE reads characters
    rows = len(embeddings.weight)
    if len(tokenizer) > rows or rows - len(tokenizer) > max(_UNUSED_ROWS, rows // 20):
        raise UserError(
            f"the tokenizer has {len(tokenizer):,} tokens, {name} embeds {rows:,}; they do not belong together"
        )
    table = _position_table(model)
    if table is not None and table.padding_idx not in (None, tokenizer.pad_token_id):
        # RoBERTa counts positions from the padding index.
        raise UserError(
            f"the tokenizer pads with id {tokenizer.pad_token_id}, {name} with {table.padding_idx}; they do not belong "
            "together"
        )
