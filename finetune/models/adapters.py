"""LoRA adapters (Hu et al. 2021, arXiv:2106.09685) by peft: small matrices are trained beside weights that stay."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from finetune.errors import UserError
from finetune.recipe import Lora


def add_lora(
    model: PreTrainedModel, lora: Lora, base: str, revision: str | None, heads: Sequence[str] = ()
) -> PreTrainedModel:
    """The model with adapters in every linear layer, or in those that the recipe names, and all else frozen.

    `heads` are modules of a classifier that begin at random: they are trained whole, and saved with the adapters.

    Raises:
        UserError: no layer has such a name.
    """
    config = LoraConfig(
        task_type="SEQ_CLS" if heads else "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) or (_linear_layers(model, heads) if heads else "all-linear"),
        modules_to_save=list(heads) or None,
        revision=revision,
    )
    try:
        with warnings.catch_warnings():
            # Peft asks transformers for something by its old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            adapted = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"model.lora: {' '.join(str(error).split())}") from None
    # What the adapter belongs to, by the name that others know it by: a directory of this machine says them nothing.
    adapted.peft_config["default"].base_model_name_or_path = Path(base).name if Path(base).is_absolute() else base
    return cast("PreTrainedModel", adapted)


def _linear_layers(model: PreTrainedModel, heads: Sequence[str]) -> list[str]:
    """The full names of all linear layers that are not in the heads."""
    left_out = tuple(f"{name}." for name in heads)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not f"{name}.".startswith(left_out)
    ]


def merge_adapter(model: nn.Module, directory: Path | None) -> PreTrainedModel:
    """The model with its adapters added to its weights, as one without adapters; they are saved to `directory` first.

    A model without adapters is returned as it is.
    """
    if not isinstance(model, PeftModel):
        return cast("PreTrainedModel", model)
    if directory is not None:
        # Asked whether to save embeddings, peft would look for the base on the Hub.
        model.save_pretrained(str(directory), save_embedding_layers=False)
        (directory / "README.md").unlink(missing_ok=True)  # peft's own is a form with nothing filled in
    return cast("PreTrainedModel", model.merge_and_unload())
