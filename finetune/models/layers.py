"""The layers of a model by their distance from the text: which of them are trained, and which begin anew."""

import re

import torch
from torch import nn
from transformers import PreTrainedModel

from finetune.errors import UserError

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|albert_layer_groups)\.(\d+)\.")
"""How the stacked layers of a model are called: BERT, ELECTRA, DistilBERT, DeBERTa; ModernBERT and this project's
recurrent models; GPT-2; ALBERT, whose layers share one set of weights."""


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Each parameter's distance from the text: 0 for embeddings, 1 for the first layer, ... one more for the head.

    Whatever is no numbered layer, and no embedding, counts as the head: poolers, classifiers, the last norm.
    """
    embedding_names = {
        f"{name}." for name, module in model.named_modules() if name.rpartition(".")[2].startswith("embedding")
    } | {f"{name}." for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    depths: dict[str, int] = {}
    for name, _ in model.named_parameters():
        found = _LAYER.search(name)
        if found is not None:
            depths[name] = int(found[1]) + 1
        elif name.startswith(tuple(embedding_names)):
            depths[name] = 0
    top = max(depths.values(), default=0) + 1
    return {name: depths.get(name, top) for name, _ in model.named_parameters()}


def train_last_layers(model: nn.Module, count: int, name: str) -> None:
    """Freeze all but the head and the last `count` layers.

    Raises:
        UserError: the model has fewer layers.
    """
    depths = layer_depths(model)
    lowest = _first_of_last(max(depths.values()) - 1, count, f"model.trained_layers {count}", name)
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad = depths[parameter_name] >= lowest


def reinitialize_layers(model: PreTrainedModel, count: int, name: str) -> None:
    """Let the last `count` layers, and a pooler above them, begin with random weights of the architecture's own kind.

    What they learnt serves the task of pretraining most, and can be in the way where rows are few (Zhang et al. 2021,
    arXiv:2006.05987, section 4).

    Raises:
        UserError: the model has fewer layers.
    """
    if count == 0:
        return
    # By the numbers in their names: what has no head yet has nothing above its layers.
    numbered = {key: int(found[1]) + 1 for key, _ in model.named_parameters() if (found := _LAYER.search(key))}
    layers = max(numbered.values(), default=0)
    lowest = _first_of_last(layers, count, f"model.reinitialized_layers {count}", name)
    anew = {
        parameter_name
        for parameter_name, _ in model.named_parameters()
        if numbered.get(parameter_name, 0) >= lowest or ".pooler." in f".{parameter_name}"
    }
    owners = {parameter_name.rpartition(".")[0] for parameter_name in anew}
    with torch.no_grad():
        for module_name, module in model.named_modules():
            if module_name in owners:
                for parameter in module.parameters(recurse=False):
                    # By this mark transformers tells weights that were loaded, and leaves them as they are.
                    parameter._is_hf_initialized = False
                model._init_weights(module)


def _first_of_last(layers: int, count: int, what: str, name: str) -> int:
    """The depth at which the last `count` of so many layers begin."""
    if count > layers:
        raise UserError(f"{what}: {name} has {layers} layers")
    return layers + 1 - count


def still_frozen_parts(model: nn.Module) -> None:
    """Put every part of which no weight is trained into its evaluation mode: what is frozen says the same each time.

    Dropout in a frozen encoder would but blur what its head sees. Beside adapters nothing is frozen in this sense.
    """
    if hasattr(model, "peft_config") or all(parameter.requires_grad for parameter in model.parameters()):
        return
    for module in model.children():
        trained = [parameter.requires_grad for parameter in module.parameters()]
        if trained and not any(trained):
            module.eval()
        elif trained:
            still_frozen_parts(module)
