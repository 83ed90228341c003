"""Models: encoders, decoders, recurrent classifiers, and the floors below them."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from finetune.errors import UserError
from finetune.models.adapters import merge_adapter
from finetune.models.decoder import SAMPLING_FIELDS, build_decoder, refuse_encoder
from finetune.models.encoder import build_encoder, head
from finetune.models.encoder_decoder import (
    build_encoder_decoder,
    build_seq2seq,
    decoder_start,
    is_encoder_decoder,
)
from finetune.models.floors import Floor
from finetune.models.initial_embeddings import save_vectors, start_from_vectors
from finetune.models.novelty import last_layer
from finetune.models.pooled import PooledEncoderForSequenceClassification
from finetune.models.pretrained import LOADING_ERRORS, encoder_config, max_positions
from finetune.models.recurrent import RecurrentConfig, RecurrentForSequenceClassification
from finetune.models.recurrent_lm import RecurrentForCausalLM
from finetune.models.shallow import ShallowConfig, ShallowForSequenceClassification
from finetune.models.word_vectors import learn_vectors, start_from_counts
from finetune.recipe import (
    BagModel,
    CnnModel,
    DecoderModel,
    EncoderDecoderModel,
    EncoderModel,
    RecurrentModel,
    Seq2SeqModel,
    Task,
    local_name,
)

__all__ = [
    "SAMPLING_FIELDS",
    "Floor",
    "build_model",
    "decoder_start",
    "divide_logits",
    "is_encoder_decoder",
    "learn_vectors",
    "load_model",
    "load_writer",
    "match_inputs",
    "max_positions",
    "merge_adapter",
    "save_vectors",
    "start_at",
    "start_from_counts",
    "start_from_vectors",
    "writes_text",
]


_SAFE: dict[str, Any] = {"trust_remote_code": False, "use_safetensors": True}
"""Of trained models: without an answer transformers asks at the terminal whether to run a repository's code."""


_WRITERS = ("CausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the names of architectures end that write text."""


def build_model(
    model: EncoderModel | DecoderModel | EncoderDecoderModel | RecurrentModel | Seq2SeqModel | BagModel | CnnModel,
    task: Task,
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    attention: str,
) -> PreTrainedModel:
    """The model that a recipe describes, ready to train; new weights are drawn from torch's seed."""
    if isinstance(model, EncoderModel):
        return build_encoder(model, task, labels, tokenizer, max_length, attention)
    if isinstance(model, DecoderModel):
        return build_decoder(model, tokenizer, max_length, attention)
    if isinstance(model, EncoderDecoderModel):
        return build_encoder_decoder(model, tokenizer, max_length, attention)
    if isinstance(model, Seq2SeqModel):
        return build_seq2seq(model, tokenizer)
    if isinstance(model, BagModel | CnnModel):
        return ShallowForSequenceClassification(
            ShallowConfig(
                vocab_size=len(tokenizer),
                pad_token_id=tokenizer.pad_token_id,
                embedding_size=model.embedding_size,
                filters=model.filters if isinstance(model, CnnModel) else 0,
                kernel_sizes=model.kernel_sizes if isinstance(model, CnnModel) else (),
                pooling="max" if isinstance(model, CnnModel) else model.pooling,
                dropout=model.dropout,
                token_dropout=model.token_dropout,
                **head(task, labels),
            )
        )
    generates = task == "generate"
    if generates and max(model.adaptive_softmax_cutoffs, default=0) >= len(tokenizer):
        raise UserError(
            f"model.adaptive_softmax_cutoffs {list(model.adaptive_softmax_cutoffs)}: the vocabulary has "
            f"{len(tokenizer):,} tokens only; leave out those beyond it"
        )
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
        weight_dropout=model.weight_dropout,
        locked_dropout=model.locked_dropout,
        skip_connections=model.skip_connections,
        layer_norm=model.layer_norm,
        head_activation=model.head_activation,
        initialization=model.initialization,
        forget_bias=model.forget_bias,
        adaptive_softmax_cutoffs=model.adaptive_softmax_cutoffs if generates else (),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id if generates else None,
        eos_token_id=tokenizer.eos_token_id if generates else None,
        tie_word_embeddings=generates and model.tie_embeddings,
        **head(task, labels),
    )
    return RecurrentForCausalLM(config) if generates else RecurrentForSequenceClassification(config)


def start_at(model: PreTrainedModel, rating: float) -> None:
    """Let a new head begin at `rating`, the mean of the training rows, rather than learn it a small step at a time."""
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    bias = heads[-1].bias
    # New heads begin at zero; one that is not has been trained for ratings already.
    if bias is not None and not bias.any():
        with torch.no_grad():
            bias.fill_(rating)


def divide_logits(model: nn.Module, temperature: float) -> None:
    """Divide a classifier's logits by `temperature`, in its last layer's weights, so that every copy says the same.

    Raises:
        UserError: the model does not end in a linear layer.
    """
    last = last_layer(model)
    if last is None:
        raise UserError(f"evaluation.calibration: {type(model).__name__} does not end in a linear layer; leave it out")
    with torch.no_grad():
        for parameter in last.parameters(recurse=False):
            parameter.div_(temperature)


def match_inputs(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer, made to give token types to a model that tells two of them apart, and to no other.

    DistilBERT and ModernBERT have none. RoBERTa has one, and a Korean RoBERTa comes with BERT's tokenizer, which gives
    two. ALBERT has two, and its tokenizer class keeps them to itself. Classes of that kind decide anew whenever they
    are loaded; a plain fast tokenizer keeps what is decided here.
    """
    names = list(tokenizer.model_input_names)
    types = getattr(encoder_config(model), "type_vocab_size", None)
    # Adapters, and pooling over all states, are put around what reads the text.
    reader: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    reader = reader.encoder if isinstance(reader, PooledEncoderForSequenceClassification) else reader
    if "token_type_ids" not in inspect.signature(reader.forward).parameters or (types is not None and types < 2):
        names = [name for name in names if name != "token_type_ids"]
    elif types is not None and "token_type_ids" not in names:
        names.append("token_type_ids")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if set(names) == set(tokenizer.model_input_names) or backend is None:
        tokenizer.model_input_names = names
        return tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        model_input_names=names,
        **tokenizer.special_tokens_map,
    )


def load_writer(name_or_path: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A model that writes text, in float32, from a `model/` directory or the Hub: a decoder, or one with an encoder.

    Raises:
        UserError: there is none, it cannot be reached, or it lacks weights.
    """
    name = str(name_or_path)
    try:
        config = AutoConfig.from_pretrained(local_name(name), revision=revision, trust_remote_code=False)
        auto_class: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        if not config.is_encoder_decoder:
            refuse_encoder(config, name)
        model, loading = auto_class.from_pretrained(
            local_name(name), revision=revision, dtype=torch.float32, output_loading_info=True, **_SAFE
        )
    except LOADING_ERRORS as error:
        raise UserError(f"model {name!r}: {' '.join(str(error).split())}") from None
    if loading["missing_keys"]:
        raise UserError(f"model {name!r}: no weights for {min(loading['missing_keys'])}; it was not trained to write")
    model.eval()
    return cast("PreTrainedModel", model)


def writes_text(name_or_path: str | Path, revision: str | None = None) -> bool:
    """Whether a model directory, an embedded model or a Hub id was made to write text, by its configuration."""
    try:
        config = AutoConfig.from_pretrained(local_name(str(name_or_path)), revision=revision, trust_remote_code=False)
    except LOADING_ERRORS:
        return False  # whoever loads it says what is wrong
    return any(name.endswith(_WRITERS) for name in config.architectures or [])


def load_model(name_or_path: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A trained classifier of any family in float32, from a `model/` directory or the Hub.

    Raises:
        UserError: there is none, it cannot be reached, or it has not been fine-tuned.
    """
    name = str(name_or_path)
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            local_name(name), revision=revision, dtype=torch.float32, output_loading_info=True, **_SAFE
        )
    except LOADING_ERRORS as error:
        raise UserError(f"model {name!r}: {' '.join(str(error).split())}") from None
    if loading["missing_keys"]:
        # Transformers would draw them at random: every answer would be a guess.
        lacking = min(loading["missing_keys"], key=lambda key: (key.startswith(f"{model.base_model_prefix}."), key))
        of_encoder = lacking.startswith(f"{model.base_model_prefix}.") and "pooler" not in lacking
        what = "the checkpoint is not complete" if of_encoder else "it has no trained classification head"
        raise UserError(
            f"model {name!r}: no weights for {lacking}: {what}; fine-tune it first, finetune train RECIPE "
            f"--model.model_name_or_path {name}"
        )
    return model
