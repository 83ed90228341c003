"""`inspect`: where runs are right and where not: by length, by label, under noise, and the rows behind it."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finetune import __version__
from finetune.attribution import attribute
from finetune.data import Splits, load_splits
from finetune.data.splits import column, further_column, id_array, label_array
from finetune.errors import UserError
from finetune.evaluation.label_errors import confident_labels, likely_label_errors
from finetune.models import Floor
from finetune.predict import Classifier, load_classifier
from finetune.progress import ProgressBar
from finetune.recipe import MajorityFloor, TfidfFloor
from finetune.reporting.comparison import display_names, refuse_repeats
from finetune.reporting.inspection import sentences, write_inspection
from finetune.run import RunDirectory, open_run
from finetune.significance import difference_interval, unpaired_difference, wilson_interval
from finetune.text.noise import NOISES, noisy

_LISTED = 20
"""Rows of each kind that are shown."""
_EXPLAINED = 5
"""Of each run's surest mistakes, so many are asked which tokens spoke for the wrong label: that takes seconds each."""
_VALUES = 20
"""Of a column, the most that are shown: those with the most rows."""
_LENGTHS = 3
"""Slices by length, with about as many rows each."""


@dataclass(frozen=True)
class _Rows:
    """The test rows: the runs share them."""

    labels: Sequence[str]
    ids: Sequence[str]
    texts: Sequence[str]
    references: NDArray[np.int64]
    """Indices into the labels, (rows,)."""

    def shown(self, place: int) -> dict[str, Any]:
        """What a table says of the row at a place."""
        reference = self.labels[int(self.references[place])]
        return {"id": self.ids[place], "text": self.texts[place], "reference": reference}


@dataclass(frozen=True)
class _Inspected:
    """A run, what it said of the test rows and how to ask it about other texts."""

    name: str
    said: NDArray[np.float64]
    """The probability of each label, (rows, labels), in the order of the rows."""
    model: Classifier | Floor

    @cached_property
    def given(self) -> NDArray[np.int64]:
        """The likeliest label of each row, (rows,)."""
        return self.said.argmax(axis=1)

    def classify(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Texts -> probabilities, (texts, labels)."""
        return self.model.outputs(texts) if isinstance(self.model, Floor) else self.model.classify(texts)


def inspect_runs(
    paths: Sequence[Path], output: Path, *, rows: int = 2000, seed: int = 0, by: Sequence[str] = ()
) -> tuple[list[str], Path]:
    """Write inspection.json, inspection.md and inspection.html; returns what they say in sentences, and the page.

    Slices by length, by label and `by` columns of the first run's data are of the runs' own predictions. Under noise
    `rows` of the test rows (all, if there are no more) are labelled anew, each kind on those that it changes; that is
    no further look at the test split as it is, but it is one at its rows: choose no model by it.

    Raises:
        UserError: runs that do not classify, lack predictions, or were scored on other rows than their data give now;
            a column that is not in the data, or has a value of its own for each row.
    """
    refuse_repeats(paths)
    directories = [open_run(path) for path in paths]
    for run in directories:
        if run.recipe().task != "classify":
            raise UserError(f"{run.path}: task {run.recipe().task}; inspect is for runs that give one label")
        if run.recipe().data.text_pair_column is not None:
            raise UserError(f"{run.path}: it reads pairs of texts, which inspect does not know")
    data = directories[0].recipe().data
    splits = load_splits(data)
    for run in directories:
        _check_rows(run, splits)
    ids = id_array(splits.test).to_pylist()
    test = _Rows(splits.labels, ids, column(splits.test, "text"), label_array(splits.test))
    columns = {name: further_column(data, splits, "test", name) for name in by}
    runs = [
        _Inspected(name, _own_probabilities(run, test), _model(run, splits))
        for name, run in zip(display_names(paths), directories, strict=True)
    ]
    chosen = np.random.default_rng(seed).permutation(len(test.texts))[:rows]
    content = {
        "format": 2,
        "finetune_version": __version__,
        "runs": [run.name for run in runs],
        "floors": [run.name for run in runs if isinstance(run.model, Floor)],
        "labels": splits.labels,
        "test_rows": len(test.texts),
        "noise_rows": len(chosen),
        "seed": seed,
        "accuracy": {run.name: _share(run.given == test.references) for run in runs},
        "lengths": _by_length(test, runs),
        "by_label": _by_label(test, runs),
        "columns": [_by_column(name, values, test, runs) for name, values in columns.items()],
        "noise": _under_noise(test, runs, chosen, seed),
        "mistakes": _mistakes(test, runs),
        "disagreements": _disagreements(test, runs),
        "suspects": _suspects(test, runs, splits.leaked_test_ids),
    }
    return sentences(content), write_inspection(content, output)


def _check_rows(run: RunDirectory, splits: Splits) -> None:
    scores = run.scores()["splits"].get("test")
    if scores is None or not run.predictions_file("test").exists():
        raise UserError(f"{run.path}: no predictions of the test split; `finetune evaluate {run.path} --split test`")
    now = splits.report["splits"]["test"]["rows_fingerprint"]
    if scores["rows_fingerprint"] != now or scores["labels"] != list(splits.labels):
        raise UserError(f"{run.path}: its test rows or labels are not those of the first run's data as they are now")


def _model(run: RunDirectory, first: Splits) -> Classifier | Floor:
    """The run's model; a floor is fitted again, which takes seconds, on the rows that it was fitted on."""
    recipe = run.recipe()
    if not isinstance(recipe.model, MajorityFloor | TfidfFloor):
        return load_classifier(str(run.path))
    trained_on = run.data()["splits"]["train"]["rows_fingerprint"]
    splits = first
    if splits.report["splits"]["train"]["rows_fingerprint"] != trained_on:
        splits = load_splits(recipe.data)
    if splits.report["splits"]["train"]["rows_fingerprint"] != trained_on:
        raise UserError(f"{run.path}: its training rows are no longer those of the run; restore the data that it names")
    return Floor(recipe.model, column(splits.train, "text"), label_array(splits.train), len(splits.labels))


def _own_probabilities(run: RunDirectory, test: _Rows) -> NDArray[np.float64]:
    """What the run said of the test rows, (rows, labels), in their order."""
    table = pq.read_table(run.predictions_file("test"), columns=["id", "scores"])
    places = {name: place for place, name in enumerate(table["id"].to_pylist())}
    return np.array(table["scores"].to_pylist())[[places[name] for name in test.ids]]


def _share(right: NDArray[np.bool_]) -> dict[str, float]:
    return asdict(wilson_interval(int(right.sum()), len(right)))


def _slice(test: _Rows, runs: Sequence[_Inspected], rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Of the rows that are marked, (rows,), how many each run has right."""
    right = {run.name: (run.given == test.references)[rows] for run in runs}
    return {"rows": int(rows.sum()), "accuracy": {name: _share(values) for name, values in right.items()}}


def _by_length(test: _Rows, runs: Sequence[_Inspected]) -> list[dict[str, Any]]:
    """Accuracy by the length of the text, in characters."""
    lengths = np.array([len(text) for text in test.texts])
    cuts = [int(cut) for cut in np.unique(np.quantile(lengths, np.arange(1, _LENGTHS) / _LENGTHS, method="higher"))]
    found = []
    for low, high in zip([0, *(cut + 1 for cut in cuts)], [*cuts, None], strict=True):
        rows = (lengths >= low) & (lengths <= (lengths.max() if high is None else high))
        if rows.any():
            found.append({"from": low, "to": high, **_slice(test, runs, rows)})
    return found


def _by_label(test: _Rows, runs: Sequence[_Inspected]) -> list[dict[str, Any]]:
    """Of the rows of each label, how many got it."""
    return [
        {"label": label, **_slice(test, runs, test.references == number)}
        for number, label in enumerate(test.labels)
        if (test.references == number).any()
    ]


def _by_column(name: str, values: Sequence[str], test: _Rows, runs: Sequence[_Inspected]) -> dict[str, Any]:
    """Accuracy by the values of a column, those with the most rows first, and how far each is from all other rows."""
    counts = Counter(values)
    if len(counts) > _VALUES and max(counts.values()) == 1:
        raise UserError(f"--by {name}: each of the {len(counts):,} test rows has a value of its own; name a category")
    common = sorted(counts, key=lambda value: (-counts[value], value))
    slices = []
    for value in common[:_VALUES]:
        rows = np.array([of_row == value for of_row in values])
        differences = {}
        for run in runs:
            right = run.given == test.references
            inside, outside = right[rows], right[~rows]
            differences[run.name] = (
                asdict(unpaired_difference(int(inside.sum()), len(inside), int(outside.sum()), len(outside)))
                if len(outside)
                else None
            )
        slices.append({"value": value, **_slice(test, runs, rows), "difference": differences})
    rest = common[_VALUES:]
    return {
        "column": name,
        "values": len(common),
        "slices": slices,
        "others": {"values": len(rest), "rows": sum(counts[value] for value in rest)},
    }


def _under_noise(test: _Rows, runs: Sequence[_Inspected], chosen: NDArray[np.int64], seed: int) -> list[dict[str, Any]]:
    """For each kind of noise, on the rows that it changes: accuracy with it, and the drop against those as they are."""
    found: list[dict[str, Any]] = []
    changed_by: dict[str, tuple[NDArray[np.int64], list[str]]] = {}
    for kind in NOISES:
        changed = {
            place: new
            for row, place in enumerate(chosen.tolist())
            if (new := noisy(test.texts[place], kind, f"{seed} row {row}")) != test.texts[place]
        }
        if changed:
            changed_by[kind] = np.array(list(changed)), list(changed.values())
            found.append({"noise": kind, "rows": len(changed), "example": changed_by[kind][1][0], "runs": {}})
    for run in runs:
        with ProgressBar(f"{run.name} under noise", sum(len(places) for places, _ in changed_by.values())) as bar:
            for entry in found:
                places, texts = changed_by[entry["noise"]]
                before = run.given[places] == test.references[places]
                after = run.classify(texts).argmax(axis=1) == test.references[places]
                lost, won = int((before & ~after).sum()), int((after & ~before).sum())
                entry["runs"][run.name] = {
                    "accuracy": _share(after),
                    "clean": _share(before),
                    "drop": asdict(difference_interval(lost, won, len(places))),
                }
                bar.advance(len(places))
    return found


def _mistakes(test: _Rows, runs: Sequence[_Inspected]) -> dict[str, list[dict[str, Any]]]:
    """Of each run the wrong answers that it was surest of, the first of a neural one with what they rest on.

    A TF-IDF floor has weights of n-grams that overlap, which are no tokens of the text: it is left out there.
    """
    found = {}
    for run in runs:
        sure = run.said.max(axis=1)
        wrong = np.flatnonzero(run.given != test.references)
        surest = wrong[np.argsort(-sure[wrong], kind="stable")][:_LISTED].tolist()
        found[run.name] = [
            {
                **test.shown(place),
                "predicted": test.labels[int(run.given[place])],
                "probability": float(sure[place]),
            }
            for place in surest
        ]
        if not isinstance(run.model, Floor):
            with ProgressBar(f"{run.name}: what its mistakes rest on", min(len(surest), _EXPLAINED)) as bar:
                for row in found[run.name][:_EXPLAINED]:
                    row |= _attributed(run.model, row["text"], row["predicted"])
                    bar.advance(1)
    return found


def _attributed(classifier: Classifier, text: str, label: str) -> dict[str, Any]:
    """What each token adds to the probability of a label, or why that cannot be told."""
    try:
        return {"attribution": asdict(attribute(classifier, text, label))}
    except UserError as error:
        return {"unexplained": str(error)}


def _disagreements(test: _Rows, runs: Sequence[_Inspected]) -> list[dict[str, Any]]:
    """Rows on which the first run and the second differ, those first of which both are surest."""
    if len(runs) < 2:
        return []
    first, second = runs[:2]
    differ = np.flatnonzero(first.given != second.given)
    surety = np.minimum(first.said.max(axis=1), second.said.max(axis=1))
    surest = differ[np.argsort(-surety[differ], kind="stable")][:_LISTED].tolist()
    return [
        {
            **test.shown(place),
            "predicted": {run.name: test.labels[int(run.given[place])] for run in (first, second)},
        }
        for place in surest
    ]


def _suspects(test: _Rows, runs: Sequence[_Inspected], leaked: Container[str]) -> dict[str, Any]:
    """Rows whose label is likely wrong, by the mean probability of the runs, which were not trained on them.

    Rows whose text the training data have too are left out, and a majority floor, which says nothing of a row.
    """
    told = [run for run in runs if not (isinstance(run.model, Floor) and run.model.pipeline is None)]
    unseen = np.array([row_id not in leaked for row_id in test.ids])
    found: dict[str, Any] = {"runs": [run.name for run in told], "leaked_rows": int((~unseen).sum())}
    if not told or not unseen.any():
        return {**found, "suspected_rows": 0, "rows": []}
    kept = np.flatnonzero(unseen)
    mean = np.mean([run.said for run in told], axis=0)[kept]
    likely = confident_labels(mean, test.references[kept])
    places = likely_label_errors(mean, test.references[kept])
    rows = [
        {
            **test.shown(int(kept[place])),
            "likely": test.labels[int(likely[place])],
            "probability_of_reference": float(mean[place, test.references[kept[place]]]),
            "probability_of_likely": float(mean[place, likely[place]]),
        }
        for place in places[:_LISTED].tolist()
    ]
    return {**found, "suspected_rows": len(places), "rows": rows}
