"""LoRA adapters (Hu et al. 2021, arXiv:2106.09685) by peft: small matrices are trained beside weights that stay."""

import warnings
from pathlib import Path
from typing import cast

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from finetune.errors import UserError
from finetune.recipe import Lora


def add_lora(model: PreTrainedModel, lora: Lora, base: str, revision: str | None) -> PreTrainedModel:
    """The model with adapters in every linear layer, or in those that the recipe names, and all else frozen.

    Raises:
        UserError: no layer has such a name.
    """
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) if lora.target_modules else "all-linear",
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
