"""`inspect`: where runs are right and where not: by length, by label, under noise, and the rows behind it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finetune.data import Splits, load_splits
from finetune.data.splits import column, id_array, label_array
from finetune.errors import UserError
from finetune.models import Floor
from finetune.predict import load_classifier
from finetune.progress import ProgressBar
from finetune.recipe import MajorityFloor, TfidfFloor
from finetune.reporting.comparison import display_names, refuse_repeats
from finetune.reporting.inspection import write_inspection
from finetune.run import RunDirectory, open_run
from finetune.significance import difference_interval, wilson_interval
from finetune.text.noise import NOISES, noisy

_LISTED = 20
"""Rows of each kind that are shown."""
_LENGTHS = 3
"""Slices by length, with about as many rows each."""


def inspect_runs(paths: Sequence[Path], output: Path, *, rows: int = 2000, seed: int = 0) -> Path:
    """Write inspection.json and inspection.md into `output`; returns the path of the latter.

    Slices by length and label are of the runs' own predictions. Under noise `rows` of the test rows (all, if there are
    no more) are labelled anew, each kind on those that it changes; that is no further look at the test split as it is,
    but it is one at its rows: choose no model by it.

    Raises:
        UserError: runs that do not classify, lack predictions, or were scored on other rows than their data give now.
    """
    refuse_repeats(paths)
    runs = [open_run(path) for path in paths]
    names = display_names(paths)
    for run in runs:
        if run.recipe().task != "classify":
            raise UserError(f"{run.path}: task {run.recipe().task}; inspect is for runs that give one label")
        if run.recipe().data.text_pair_column is not None:
            raise UserError(f"{run.path}: it reads pairs of texts, which inspect does not know")
    splits = load_splits(runs[0].recipe().data)
    for run in runs:
        _check_rows(run, splits)
    texts, references = column(splits.test, "text"), label_array(splits.test)
    said = [_own_probabilities(run, splits) for run in runs]
    chosen = np.random.default_rng(seed).permutation(len(texts))[:rows]
    content = {
        "format": 1,
        "runs": names,
        "labels": splits.labels,
        "test_rows": len(texts),
        "noise_rows": len(chosen),
        "seed": seed,
        "lengths": _by_length(texts, references, said, names),
        "by_label": _by_label(splits.labels, references, said, names),
        "noise": _under_noise(runs, names, splits, [texts[i] for i in chosen], references[chosen], said, chosen, seed),
        "mistakes": _mistakes(splits, texts, references, said, names),
        "disagreements": _disagreements(splits, texts, references, said, names),
        "suspects": _suspects(splits, texts, references, said),
    }
    return write_inspection(content, output)


def _check_rows(run: RunDirectory, splits: Splits) -> None:
    scores = run.scores()["splits"].get("test")
    if scores is None or not run.predictions_file("test").exists():
        raise UserError(f"{run.path}: no predictions of the test split; `finetune evaluate {run.path} --split test`")
    is_floor = isinstance(run.recipe().model, MajorityFloor | TfidfFloor)
    trained_on = run.data()["splits"]["train"]["rows_fingerprint"]
    if is_floor and load_splits(run.recipe().data).report["splits"]["train"]["rows_fingerprint"] != trained_on:
        raise UserError(f"{run.path}: its training rows are no longer those of the run; restore the data that it names")
    now = splits.report["splits"]["test"]["rows_fingerprint"]
    if scores["rows_fingerprint"] != now or scores["labels"] != list(splits.labels):
        raise UserError(f"{run.path}: its test rows or labels are not those of the first run's data as they are now")


def _own_probabilities(run: RunDirectory, splits: Splits) -> NDArray[np.float64]:
    """What the run said of the test rows, (rows, labels), in the order of the split."""
    table = pq.read_table(run.predictions_file("test"), columns=["id", "scores"])
    places = {name: place for place, name in enumerate(table["id"].to_pylist())}
    order = [places[name] for name in id_array(splits.test).to_pylist()]
    return np.array(table["scores"].to_pylist())[order]


def _share(right: NDArray[np.bool_]) -> dict[str, float]:
    return asdict(wilson_interval(int(right.sum()), len(right)))


def _by_length(
    texts: Sequence[str], references: NDArray[Any], said: Sequence[NDArray[np.float64]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Accuracy by the length of the text, in characters."""
    lengths = np.array([len(text) for text in texts])
    cuts = np.unique(np.quantile(lengths, np.arange(1, _LENGTHS) / _LENGTHS, method="higher"))
    found = []
    for low, high in zip([0, *(int(cut) + 1 for cut in cuts)], [*(int(cut) for cut in cuts), None], strict=True):
        rows = (lengths >= low) & (lengths <= (lengths.max() if high is None else high))
        if rows.any():
            right = {name: (of.argmax(axis=1) == references)[rows] for name, of in zip(names, said, strict=True)}
            accuracy = {name: _share(values) for name, values in right.items()}
            found.append({"from": low, "to": high, "rows": int(rows.sum()), "accuracy": accuracy})
    return found


def _by_label(
    labels: Sequence[str], references: NDArray[Any], said: Sequence[NDArray[np.float64]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Of the rows of each label, how many got it."""
    return [
        {
            "label": label,
            "rows": int((references == number).sum()),
            "accuracy": {
                name: _share((of.argmax(axis=1) == number)[references == number])
                for name, of in zip(names, said, strict=True)
            },
        }
        for number, label in enumerate(labels)
        if (references == number).any()
    ]


def _under_noise(
    runs: Sequence[RunDirectory],
    names: Sequence[str],
    splits: Splits,
    texts: Sequence[str],
    references: NDArray[Any],
    said: Sequence[NDArray[np.float64]],
    chosen: NDArray[np.int64],
    seed: int,
) -> list[dict[str, Any]]:
    """For each kind of noise, on the rows that it changes: accuracy with it, and the drop against those as they are."""
    found: list[dict[str, Any]] = []
    changed_by: dict[str, tuple[NDArray[np.int64], list[str]]] = {}
    for kind in NOISES:
        changed = [noisy(text, kind, f"{seed} row {row}") for row, text in enumerate(texts)]
        places = np.array([i for i, (text, new) in enumerate(zip(texts, changed, strict=True)) if text != new], int)
        if len(places):
            changed_by[kind] = places, [changed[i] for i in places]
            found.append({"noise": kind, "rows": len(places), "example": changed[places[0]], "runs": {}})
    for run, name, clean in zip(runs, names, said, strict=True):
        predict = _predictor(run, splits)
        with ProgressBar(f"{name} under noise", sum(len(places) for places, _ in changed_by.values())) as bar:
            for entry in found:
                places, changed = changed_by[entry["noise"]]
                before = clean[chosen[places]].argmax(axis=1) == references[places]
                after = predict(changed).argmax(axis=1) == references[places]
                lost, won = int((before & ~after).sum()), int((after & ~before).sum())
                entry["runs"][name] = {
                    "accuracy": _share(after),
                    "clean": _share(before),
                    "drop": asdict(difference_interval(lost, won, len(places))),
                }
                bar.advance(len(places))
    return found


def _predictor(run: RunDirectory, splits: Splits) -> Any:
    """Texts -> probabilities, (texts, labels); a floor is fitted again, which takes seconds."""
    recipe = run.recipe()
    if isinstance(recipe.model, MajorityFloor | TfidfFloor):
        own = load_splits(recipe.data)
        return Floor(recipe.model, column(own.train, "text"), label_array(own.train), len(splits.labels)).outputs
    return load_classifier(str(run.path)).classify


def _row(splits: Splits, texts: Sequence[str], references: NDArray[Any], place: int) -> dict[str, Any]:
    return {
        "id": id_array(splits.test)[place].as_py(),
        "text": texts[place],
        "reference": splits.labels[int(references[place])],
    }


def _mistakes(
    splits: Splits,
    texts: Sequence[str],
    references: NDArray[Any],
    said: Sequence[NDArray[np.float64]],
    names: Sequence[str],
) -> dict[str, list[dict[str, Any]]]:
    """Of each run the wrong answers that it was surest of."""
    found = {}
    for name, of_run in zip(names, said, strict=True):
        given, sure = of_run.argmax(axis=1), of_run.max(axis=1)
        wrong = np.flatnonzero(given != references)
        surest = wrong[np.argsort(-sure[wrong], kind="stable")][:_LISTED].tolist()
        found[name] = [
            {
                **_row(splits, texts, references, place),
                "predicted": splits.labels[int(given[place])],
                "probability": float(sure[place]),
            }
            for place in surest
        ]
    return found


def _disagreements(
    splits: Splits,
    texts: Sequence[str],
    references: NDArray[Any],
    said: Sequence[NDArray[np.float64]],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """Rows on which the first run and the second differ, those first of which both are surest."""
    if len(said) < 2:
        return []
    first, second = said[0], said[1]
    differ = np.flatnonzero(first.argmax(axis=1) != second.argmax(axis=1))
    surety = np.minimum(first.max(axis=1), second.max(axis=1))
    surest = differ[np.argsort(-surety[differ], kind="stable")][:_LISTED].tolist()
    return [
        {
            **_row(splits, texts, references, place),
            "predicted": {
                name: splits.labels[int(of[place].argmax())] for name, of in zip(names[:2], said[:2], strict=True)
            },
        }
        for place in surest
    ]


def _suspects(
    splits: Splits, texts: Sequence[str], references: NDArray[Any], said: Sequence[NDArray[np.float64]]
) -> list[dict[str, Any]]:
    """Rows whose label may be wrong: all runs give one other label, those first of which they are surest together.

    The share of the mean probability that the reference gets ("self-confidence" in Northcutt et al. 2021,
    arXiv:1911.00068) orders them.
    """
    mean = np.mean(np.stack(said), axis=0)
    given = np.stack([of_run.argmax(axis=1) for of_run in said])
    agreed = (given == given[0]).all(axis=0) & (given[0] != references)
    own = mean[np.arange(len(references)), references]
    places = np.flatnonzero(agreed)
    likeliest = places[np.argsort(own[places], kind="stable")][:_LISTED].tolist()
    return [
        {
            **_row(splits, texts, references, place),
            "given": splits.labels[int(given[0][place])],
            "probability_of_reference": float(own[place]),
        }
        for place in likeliest
    ]
