"""Where a model with an encoder looked in the prompt when it wrote each token: its cross-attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.models import decoder_start


@dataclass(frozen=True)
class AttentionMap:
    """The tokens of a prompt, those written after it, and for each of these how the attention was shared out."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    """A row for each written token, a number for each token of the prompt; each row adds up to one."""


def attention_map(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, text: str, max_length: int
) -> AttentionMap | None:
    """The attention while `text` is written after `prompt`; of several heads their mean, of several layers the last.

    None for a model that has no attention between its two sides.
    """
    shape: dict[str, Any] = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
    source: list[int] = tokenizer(prompt, **shape)["input_ids"]
    target: list[int] = tokenizer(text_target=text, **shape)["input_ids"]
    device = model.device
    implementation = getattr(model.config, "_attn_implementation", None)
    if implementation == "sdpa":
        model.set_attn_implementation("eager")  # the other code keeps no weights
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        attentions = model(
            input_ids=torch.tensor([source], device=device),
            attention_mask=torch.ones(1, len(source), dtype=torch.long, device=device),
            decoder_input_ids=torch.tensor([[decoder_start(model), *target[:-1]]], device=device),
            output_attentions=True,
        ).cross_attentions
    model.train(was_training)
    if implementation == "sdpa":
        model.set_attn_implementation(implementation)
    if not attentions:
        return None
    weights = attentions[-1][0].mean(dim=0).double().cpu()  # (target, source)
    rows = tuple(tuple(round(value, 4) for value in row) for row in weights.tolist())
    return AttentionMap(_shown(source, tokenizer), _shown(target, tokenizer), rows)


def _shown(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Tokens as people read them; one that is a space alone is shown as ␣."""
    return tuple(str(tokenizer.decode([token])).strip() or "␣" for token in ids)
