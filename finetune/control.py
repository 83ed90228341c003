"""`control`: whether models that write by label write what is asked, as a classifier says that has seen other texts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from finetune import __version__
from finetune.data import Splits, load_splits
from finetune.data.splits import column, normalized_key
from finetune.errors import UserError
from finetune.evaluation.writing import distinct, ngrams, units
from finetune.generate import load_generator
from finetune.predict import Classifier, load_classifier
from finetune.progress import ProgressBar
from finetune.recipe import Recipe
from finetune.reporting.comparison import display_names, refuse_repeats
from finetune.reporting.control import sentences, write_control
from finetune.run import RunDirectory, open_run
from finetune.significance import unpaired_difference, wilson_interval

_SHARED = 0.01
"""Of a writer's training texts, the share that the classifier may have been trained on: short ones come everywhere."""
_NEW_NGRAM = 4
_NAMED = 5
_SHOWN = 5
"""Texts of each label that are shown, the first that were written."""


def control(
    writers: Sequence[Path],
    classifier: Path,
    output: Path,
    *,
    samples: int = 200,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> tuple[list[str], Path]:
    """Let each writer write `samples` texts for each of its labels, and the classifier say what they are.

    Beside how often the wanted label comes out there is how often the classifier finds it in the data's own test texts,
    which is what writing could reach; how varied the texts are, and how new. Written are control.json, control.md and
    control.html; returns what they say in sentences, and the page. `options` are fields of GenerationConfig that go
    before the writers' own settings.

    Raises:
        UserError: a run of another kind, labels that the classifier does not know, or a classifier that was trained on
            texts that a writer was trained on.
    """
    if samples < 1:
        raise UserError(f"--samples {samples}: from 1 on")
    refuse_repeats(writers)
    judge_run = open_run(classifier)
    if judge_run.recipe().task != "classify":
        raise UserError(f"{classifier}: task {judge_run.recipe().task}; a run that gives one label is needed")
    judge = load_classifier(str(classifier))
    judge_recipe = judge_run.recipe()
    known = _training_keys(load_splits(judge_recipe.data, judge_recipe.task))
    runs = [(run := open_run(path), _splits(run)) for path in writers]
    labels = [_labels(run, splits, judge.labels) for run, splits in runs]
    if any(set(of_run) != set(labels[0]) for of_run in labels):
        raise UserError("the writers write by different labels; compare those that share them")
    found = {
        name: _judge(run, splits, labels[0], judge, known, samples, seed, options or {})
        for name, (run, splits) in zip(display_names(writers), runs, strict=True)
    }
    content = {
        "format": 1,
        "finetune_version": __version__,
        "classifier": judge_run.name,
        "labels": labels[0],
        "samples": samples,
        "seed": seed,
        "writers": found,
    }
    return sentences(content), write_control(content, output)


def _splits(run: RunDirectory) -> Splits:
    """The rows of a run that writes after prompts."""
    recipe = run.recipe()
    if recipe.task != "generate":
        raise UserError(f"{run.path}: task {recipe.task}; it does not write text")
    if recipe.data.prompt_column is None:
        raise UserError(f"{run.path}: it has no prompts; train it with data.prompt_column label")
    return load_splits(recipe.data, recipe.task)


def _labels(run: RunDirectory, splits: Splits, known: Sequence[str]) -> list[str]:
    """The labels that a run writes by, in the classifier's order."""
    prompts = set(column(splits.train, "prompt"))
    strange = sorted(prompts - set(known))
    if strange:
        named = ", ".join(strange[:_NAMED]) + (" ..." if len(strange) > _NAMED else "")
        raise UserError(f"{run.path}: it writes by {named}; the classifier gives {', '.join(known)}")
    return [label for label in known if label in prompts]


def _training_keys(splits: Splits) -> frozenset[str]:
    return frozenset(normalized_key(text) for text in column(splits.train, "text"))


def _judge(
    run: RunDirectory,
    splits: Splits,
    labels: Sequence[str],
    judge: Classifier,
    known: frozenset[str],
    samples: int,
    seed: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What one writer wrote, by label, and what became of it."""
    settings = {**_settings(run.recipe()), **options}
    training: list[str] = column(splits.train, "text")
    keys = _training_keys(splits)
    shared = len(keys & known)
    if shared > _SHARED * len(keys):
        raise UserError(
            f"{run.path}: {shared:,} of its {len(keys):,} training texts are among the classifier's, which would "
            "know them again; train the one with --data.train_part 1/2 and the other with 2/2"
        )
    seen = {gram for text in training for gram in ngrams(units(text), _NEW_NGRAM)}
    generator = load_generator(str(run.path))
    by_label = {}
    with ProgressBar(f"{run.name}: writing", samples * len(labels)) as bar:
        for number, label in enumerate(labels):
            # Seeds of their own: with one for all, the labels would share their luck.
            written = generator.generate([label] * samples, settings, seed=seed + 1_000_003 * number)
            texts = [of_row[0].text.strip() for of_row in written]
            bar.advance(samples)
            given = [judge.labels[i] for i in judge.classify(texts).argmax(axis=1)]
            by_label[label] = _of_label(label, texts, given, labels, keys, seen)
            real = [
                text
                for text, prompt in zip(column(splits.test, "text"), column(splits.test, "prompt"), strict=True)
                if prompt == label and normalized_key(text) not in known
            ]
            found = [judge.labels[i] for i in judge.classify(real).argmax(axis=1)] if real else []
            by_label[label]["real"] = _share(found.count(label), len(found)) if found else None
            by_label[label]["real_rows"] = len(found)
    hits = sum(part["hits"] for part in by_label.values())
    real_hits = sum(round(part["real"]["value"] * part["real_rows"]) for part in by_label.values() if part["real"])
    real_rows = sum(part["real_rows"] for part in by_label.values())
    test = run.scores()["splits"].get("test")
    return {
        "rate": _share(hits, samples * len(labels)),
        "real": _share(real_hits, real_rows) if real_rows else None,
        "to_real": asdict(unpaired_difference(hits, samples * len(labels), real_hits, real_rows))
        if real_rows
        else None,
        "bits_per_byte": test["metrics"]["bits_per_byte"] if test else None,
        "training_texts": len(keys),
        "shared_with_classifier": shared,
        "settings": settings,
        "labels": by_label,
    }


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The run's own settings for what is drawn by chance; without them equal prompts would get equal texts."""
    chosen = recipe.generation.model_dump(exclude={"samples", "do_sample", "num_beams"})
    return {"do_sample": True, **chosen}


def _of_label(
    label: str,
    texts: Sequence[str],
    given: Sequence[str],
    labels: Sequence[str],
    training: frozenset[str],
    seen: set[tuple[str, ...]],
) -> dict[str, Any]:
    grams = [gram for text in texts for gram in ngrams(units(text), _NEW_NGRAM)]
    copies = sum(normalized_key(text) in training for text in texts)
    return {
        "rate": _share(given.count(label), len(texts)),
        "hits": given.count(label),
        "given": {name: given.count(name) for name in labels},
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
        "copies": _share(copies, len(texts)),
        "new_ngrams": float(np.mean([gram not in seen for gram in grams])) if grams else None,
        "texts": [{"text": text, "given": name} for text, name in zip(texts[:_SHOWN], given[:_SHOWN], strict=True)],
    }


def _share(hits: int, count: int) -> dict[str, float]:
    return asdict(wilson_interval(hits, count))
