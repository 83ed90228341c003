"""GPT-style decoders: from a checkpoint, or from random weights."""

from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune.errors import UserError
from finetune.models.adapters import add_lora
from finetune.models.pretrained import check_fit, load_pretrained, set_dropout
from finetune.recipe import DecoderModel

SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Generation settings that mean nothing unless tokens are drawn."""


def build_decoder(
    model: DecoderModel, tokenizer: PreTrainedTokenizerBase, max_length: int, attention: str
) -> PreTrainedModel:
    """A decoder that gives at each place the logits of the token that comes next.

    From scratch it is a GPT-2 whose weights are drawn from torch's seed.

    Raises:
        UserError: the checkpoint cannot be had, or is too small for `max_length` or for the tokenizer.
    """
    specials = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    if model.from_scratch is not None:
        sizes = model.from_scratch
        values: dict[str, Any] = specials | {"attn_implementation": attention}
        scratch = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=max_length,
            n_embd=sizes.hidden_size,
            n_layer=sizes.num_hidden_layers,
            n_head=sizes.num_attention_heads,
            n_inner=sizes.intermediate_size,
            activation_function="gelu_pytorch_tanh",  # gelu_new's formula, in one operation
            **values,
        )
        set_dropout(scratch, model.dropout)
        return GPT2LMHeadModel(scratch)

    def prepare(config: PreTrainedConfig, name: str) -> None:
        refuse_encoder(config, name)
        set_dropout(config, model.dropout)

    decoder, loading = load_pretrained(
        model, AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING, "causal language-model", prepare, attention
    )
    if loading["missing_keys"]:
        lacking = min(loading["missing_keys"])
        raise UserError(f"model {model.model_name_or_path!r}: no weights for {lacking}: it was not trained to write")
    check_fit(decoder, tokenizer, max_length, str(model.model_name_or_path))
    # What generates has to know when to stop, and what to fill a batch with.
    for settings in (decoder.config, decoder.generation_config):
        for name, token in specials.items():
            own = getattr(settings, name, None)
            # Chat models have several end tokens.
            if not (isinstance(own, list) and token in own):
                setattr(settings, name, token)
    _mend_sampling(decoder)
    if model.tuning == "lora":
        return add_lora(decoder, model.lora, str(model.model_name_or_path), model.revision)
    return decoder


def refuse_encoder(config: PreTrainedConfig, name: str) -> None:
    """Refuse a BERT-type encoder, which transformers would load with a head of its own and let see what it is to find.

    Raises:
        UserError: it is one.
    """
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        if config.is_encoder_decoder:
            raise UserError(f"model {name!r}: {config.model_type} has an encoder too; use model.family encoder_decoder")
        raise UserError(
            f"model {name!r}: {config.model_type} reads in both directions, so each place would see the token that it "
            "is to predict; choose a GPT-style model"
        )


def _mend_sampling(decoder: PreTrainedModel) -> None:
    """Checkpoints that ship a temperature but do not say to sample can be loaded, and not saved again."""
    settings = decoder.generation_config
    if settings is not None and not settings.do_sample:
        for name in SAMPLING_FIELDS:
            if getattr(settings, name, None) is not None:
                setattr(settings, name, None)
