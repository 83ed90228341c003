"""The probe of a run: what its model says of a few texts of ours when training ends, so that copies can be proven.

Copies are proven by `finetune.hub.proof`, which reads this file's layout and imports nothing of this package.
"""

import platform
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.models import decoder_start
from finetune.recipe import Recipe
from finetune.run import RunDirectory
from finetune.text.causal import chat_ids, prompt_ids

TEXTS = (
    "정말 재미있게 봤어요. 배우들 연기도 좋고 다시 보고 싶습니다!",
    "시간이 너무 아까웠다... 기대했는데 실망만 하고 나왔네 ㅠㅠ",
    "그냥 그래요 ㅋㅋ 값은 만 원인데 두 번은 안 살 듯",
    "배송은 빨랐지만 포장이 엉망이었어요",
    "I liked the first half, but the ending made no sense.",
    "Not bad at all, and well worth the 12 dollars.",
    "The screen arrived broken and nobody answers my mails.",
    "물",
)
"""Texts that the probe is taken with: Korean and English, short and long, with digits, emoticons and punctuation."""
_PLACES = 64
"""Of models with a head over the vocabulary so many logits are kept, evenly spread."""


def record_probe(run: RunDirectory, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> None:
    """Write the run's probe: token ids of each text and its logits, (texts, labels), in the precision of the weights.

    Models over a vocabulary give the logits after the last token, at `places` of the vocabulary. Each text is read by
    itself, so that no padding is in the way. Of models that generate there are prompts too, as token ids. With an
    encoder the logits are those after the token that the decoder starts from, which is told.
    """
    task, length = recipe.task, recipe.text.max_length
    config: Any = model.config
    is_over_labels = task in ("classify", "multi_label", "rate")
    # A model may have more embeddings than its tokenizer has tokens, and nobody trains those.
    places = [] if is_over_labels else list(range(0, len(tokenizer), max(1, len(tokenizer) // _PLACES)))[:_PLACES]
    start = decoder_start(model) if recipe.reads_prompts else None
    ids: list[list[int]] = []
    logits: list[list[float]] = []
    was_training = model.training
    model.eval()
    # Second texts, where the model reads pairs.
    pairs = [*TEXTS[1:], TEXTS[0]] if recipe.data.text_pair_column else [None] * len(TEXTS)
    with torch.inference_mode():
        for text, pair in zip(TEXTS, pairs, strict=True):
            encoded = tokenizer(text, pair, truncation=True, max_length=length, return_tensors="pt").to(model.device)
            if start is not None:
                encoded["decoder_input_ids"] = torch.tensor([[start]], device=model.device)
            output = model(**encoded).logits[0].double().cpu()
            ids.append(encoded["input_ids"][0].tolist())
            logits.append((output if is_over_labels else output[-1, places]).tolist())
    model.train(was_training)
    content = {
        "task": task,
        "labels": [config.id2label[i] for i in range(len(config.id2label))]
        if is_over_labels and task != "rate"
        else [],
        "texts": list(TEXTS),
        "pairs": pairs,
        "max_length": length,
        "input_ids": ids,
        "prompt_ids": _prompts(run, tokenizer, recipe) if task == "generate" else [],
        "decoder_start": start,
        "places": places,
        "logits": logits,
        "computed_on": {**computed_on(model), "dtype": str(model.dtype).removeprefix("torch.")},
    }
    run.write_json(run.probe_file, content)


def _prompts(run: RunDirectory, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> list[list[int]]:
    """Prompts as the run was trained with: its labels, a message of a user, or the start of a text."""
    data = recipe.data
    if data.holds_chats:
        return [chat_ids([{"role": "user", "content": TEXTS[3]}], tokenizer)]
    texts = run.prompt_labels() or [TEXTS[-1] if data.prompt_column else ""]
    if recipe.reads_prompts:
        return [list(tokenizer(text)["input_ids"]) for text in texts]
    return [prompt_ids(text, tokenizer) for text in texts]


def computed_on(model: PreTrainedModel) -> dict[str, str]:
    """What rounding depends on: equal logits are to be expected where these are equal."""
    return {
        "device": model.device.type,
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__.partition("+")[0],
    }
