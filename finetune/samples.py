"""What a trained model writes after prompts of the test split: kept in its run, and measured."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import datasets
import evaluate
import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.attention_maps import attention_map
from finetune.data import Splits
from finetune.data.splits import column, normalized_key
from finetune.evaluation import metrics, writing
from finetune.evaluation.scores import new_metric
from finetune.generate import Generator, Prompt
from finetune.recipe import Recipe
from finetune.run import RunDirectory
from finetune.significance import wilson_interval
from finetune.text.causal import answers

_MAPS = 3
"""Of so many texts an attention map is kept."""


def write_samples(
    run: RunDirectory, recipe: Recipe, splits: Splits, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Write after prompts of the test split, or from the start of a text where there are none; returns what was found.

    The run's samples file gets the row's id, the prompt, what was written, whether the model ended it by itself,
    whether it is a training text, and what stands after the prompt in the data. Rows and seed are the same for all runs
    that share their test rows. The result has `count`, `settings`, and `metrics`: variety, copies of training rows, and
    where there are prompts how near the texts are to the data's; of some of them `intervals`, [low, high] at 95 %. Of
    the first texts after prompts that an encoder read, the run gets attention maps.
    """
    settings = recipe.generation
    chats = recipe.data.holds_chats
    generator_of_rows = np.random.default_rng(recipe.data.split_seed)
    chosen = generator_of_rows.permutation(len(splits.test))[: settings.samples]
    rows = splits.test.select(np.sort(chosen))
    prompts, references = _prompts(rows, chats=chats)
    unused = set() if settings.do_sample else {"temperature", "top_p"}
    options = settings.model_dump(exclude={"samples", *unused})
    generator = Generator(model.eval(), tokenizer, chats, recipe.evaluation.batch_size)
    written = [texts[0] for texts in generator.generate(prompts, options, seed=recipe.data.split_seed)]
    texts = [text.text.strip() for text in written]
    training_texts: list[str] = column(splits.train, "text")
    if chats:
        training_texts = [answer for text in training_texts for answer in answers(text)]
    known = {normalized_key(text) for text in training_texts}
    run.write_samples(
        {
            "id": row_id,
            "prompt": prompt,
            "text": text.text,
            "stopped": text.stopped,
            "copied": normalized_key(text.text) in known,
            "reference": reference,
        }
        for row_id, prompt, text, reference in zip(column(rows, "id"), prompts, written, references, strict=True)
    )
    values = _compute(metrics.Variety, predictions=texts)
    values |= _compute(metrics.Copies, predictions=texts, training_texts=training_texts)
    values["stopped"] = float(np.mean([text.stopped for text in written]))
    # Shares of texts have an interval of their own.
    intervals = {name: _share_interval(values[name], len(texts)) for name in ("copies", "stopped")}
    if chats or recipe.data.prompt_column is not None:
        for metric in (metrics.ExactMatch, metrics.Bleu, metrics.Chrf, metrics.Rouge):
            values |= _compute(metric, predictions=texts, references=references)
        intervals["exact_match"] = _share_interval(values["exact_match"], len(texts))
        for name, ends in (
            ("bleu", writing.bleu_interval(texts, references)),
            ("chrf", writing.chrf_interval(texts, references)),
        ):
            if ends is not None:
                intervals[name] = list(ends)
    if generator.has_encoder:
        # Of what an encoder reads, a prompt of a chat is none.
        shown = zip(map(str, prompts[:_MAPS]), texts, strict=False)
        maps = [attention_map(model, tokenizer, prompt, text, recipe.text.max_length) for prompt, text in shown]
        run.write_attention_maps([asdict(found) for found in maps if found is not None])
    return {"count": len(texts), "settings": settings.model_dump(), "metrics": values, "intervals": intervals}


def _share_interval(share: float, count: int) -> list[float]:
    """95 % of where the share may lie, by Wilson's score interval."""
    interval = wilson_interval(round(share * count), count)
    return [interval.low, interval.high]


def _prompts(rows: datasets.Dataset, *, chats: bool) -> tuple[list[Prompt], list[str]]:
    """What is written after, and what stands there in the data."""
    texts: list[str] = column(rows, "text")
    if not chats:
        prompts: Sequence[str] = column(rows, "prompt") if "prompt" in rows.column_names else [""] * len(texts)
        return list(prompts), texts
    asked: list[Prompt] = []
    answers: list[str] = []
    for text in texts:
        messages = json.loads(text)
        last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
        asked.append(messages[:last])
        answers.append(messages[last]["content"])
    return asked, answers


def _compute(metric: type[evaluate.Metric], **inputs: Any) -> dict[str, Any]:
    values: dict[str, Any] = new_metric(metric, len(inputs["predictions"])).compute(**inputs)
    return values
