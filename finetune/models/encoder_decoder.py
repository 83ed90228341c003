"""Encoder-decoder models: T5, BART and their like from a checkpoint, or a recurrent one with attention from scratch."""

from typing import Any

from transformers import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune.errors import UserError
from finetune.models.adapters import add_lora
from finetune.models.pretrained import check_fit, load_pretrained, set_dropout
from finetune.models.seq2seq import Seq2SeqConfig, Seq2SeqForConditionalGeneration
from finetune.recipe import EncoderDecoderModel, Seq2SeqModel


def build_seq2seq(model: Seq2SeqModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The recurrent model that a recipe describes; its weights are drawn from torch's seed."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return Seq2SeqForConditionalGeneration(
        Seq2SeqConfig(
            vocab_size=len(tokenizer),
            cell=model.cell,
            embedding_size=model.embedding_size,
            hidden_size=model.hidden_size,
            num_hidden_layers=model.num_layers,
            attention=model.attention,
            input_feeding=model.input_feeding,
            dropout=model.dropout,
            initialization=model.initialization,
            forget_bias=model.forget_bias,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=start,
        )
    )


def build_encoder_decoder(
    model: EncoderDecoderModel, tokenizer: PreTrainedTokenizerBase, max_length: int, attention: str
) -> PreTrainedModel:
    """A pretrained encoder-decoder of transformers, in full or with adapters.

    Raises:
        UserError: the checkpoint cannot be had, was not trained to write, or is too small for `max_length` or for the
            tokenizer.
    """

    def prepare(config: PreTrainedConfig, _: str) -> None:
        set_dropout(config, model.dropout)
        if model.dropout is not None and hasattr(config, "dropout_rate"):
            config.update({"dropout_rate": model.dropout})  # T5

    name = str(model.model_name_or_path)
    loaded, loading = load_pretrained(
        model,
        AutoModelForSeq2SeqLM,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        "sequence-to-sequence",
        prepare,
        attention,
    )
    if loading["missing_keys"]:
        raise UserError(f"model {name!r}: no weights for {min(loading['missing_keys'])}: it was not trained to write")
    check_fit(loaded, tokenizer, max_length, name)
    decoder_start(loaded)
    if model.tuning == "lora":
        return add_lora(loaded, model.lora, name, model.revision)
    return loaded


def is_encoder_decoder(model: PreTrainedModel) -> bool:
    """Whether a model reads a source with an encoder and writes with a decoder."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def decoder_start(model: PreTrainedModel) -> int:
    """The id of the token that a decoder starts from.

    Raises:
        UserError: neither the configuration nor the generation settings name one.
    """
    settings: Any = getattr(model, "generation_config", None)
    for place in (model.config, settings):
        found = getattr(place, "decoder_start_token_id", None)
        if found is not None:
            return int(found)
    raise UserError(f"{type(model).__name__}: its configuration names no decoder_start_token_id to write from")
