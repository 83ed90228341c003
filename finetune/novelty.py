"""`novelty`: how unlike its training texts a text is to a classifier; fitted, measured, and kept in the run."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune import __version__
from finetune.data import Splits, load_splits
from finetune.data.sources import FileOptions, embedded_file, read_file
from finetune.data.splits import column
from finetune.errors import UserError
from finetune.evaluation.classification import RankedScores
from finetune.models.novelty import EPOCHS, METHODS, Method, NoveltyDetector, fit_novelty
from finetune.predict import Classifier, load_classifier
from finetune.progress import ProgressBar
from finetune.recipe import MajorityFloor, TfidfFloor
from finetune.reporting.novelty import sentences, write_novelty
from finetune.run import open_run
from finetune.significance import SAMPLES, percentile_interval, wilson_interval

_MOST_TRAINING = 20_000
"""Training texts that the detector is fitted on; more say little more of what is ordinary."""
_LISTED = 10
"""Of the test texts the most novel, which are shown."""
_CHUNK = 1000
_HANGUL, _LATIN = re.compile("[가-힣]"), re.compile("[A-Za-z]")
Floats = NDArray[np.float64]


def novelty(
    path: Path,
    output: Path,
    *,
    against: Sequence[Path] = (),
    text_column: str = "text",
    method: Method = "mahalanobis",
    false_alarms: float = 0.05,
    rows: int = 2000,
    seed: int = 0,
) -> tuple[list[str], Path]:
    """Fit both methods on what the run's head sees of its training texts, and put one of them beside the model.

    The threshold is from validation texts. Both are held against the run's test texts and, each by itself, their
    characters in another order, reviews in another language, and the texts of the files `against`, at most `rows` of
    each. Written are novelty.json, novelty.md and novelty.html; returns what they say in sentences, and the page.

    Raises:
        UserError: a run without a head or with too few rows, or a file that cannot be read.
    """
    if not 0 < false_alarms < 0.5:
        raise UserError(f"--false_alarms {false_alarms}: between 0 and 0.5")
    if rows < 1:
        raise UserError(f"--rows {rows}: from 1 on")
    run = open_run(path)
    recipe = run.recipe()
    if isinstance(recipe.model, MajorityFloor | TfidfFloor):
        raise UserError(f"{path}: a floor keeps no model, so there is nothing to look at")
    if recipe.data.text_pair_column is not None:
        raise UserError(f"{path}: it reads pairs of texts, which novelty does not know")
    others = {name: read_file(name, FileOptions(), [text_column]) for name in against}
    classifier = load_classifier(str(path))
    splits = load_splits(recipe.data, recipe.task)
    chosen = np.random.default_rng(seed)
    train, validation, test = (
        _some(column(splits[split], "text"), most, chosen)
        for split, most in (("train", _MOST_TRAINING), ("validation", _MOST_TRAINING), ("test", rows))
    )
    unlike = _made(test, splits, rows, chosen, seed)
    unlike |= {name.stem: _some(_texts(found[text_column]), rows, chosen) for name, found in others.items()}
    unlike = {name: texts for name, texts in unlike.items() if texts}
    total = sum(map(len, (train, validation, test, *unlike.values())))
    with ProgressBar(f"{run.name}: features", total) as bar:
        _, of_train = _read(classifier, train, bar.advance)
        _, of_validation = _read(classifier, validation, bar.advance)
        said, of_test = _read(classifier, test, bar.advance)
        of_unlike = {name: _read(classifier, texts, bar.advance) for name, texts in unlike.items()}
    with ProgressBar(f"{run.name}: fitting, at most", EPOCHS, unit="epochs") as bar:
        detectors = {
            one: fit_novelty(one, of_train, of_validation, false_alarms, seed=seed, advance=bar.advance)
            for one in METHODS
        }
    scores = {one: detector.scores(of_test) for one, detector in detectors.items()}
    content = {
        "format": 1,
        "finetune_version": __version__,
        "run": run.name,
        "method": method,
        "features": of_train.shape[1],
        "training_rows": len(train),
        "validation_rows": len(validation),
        "test_rows": len(test),
        "false_alarms": false_alarms,
        "seed": seed,
        "test": {one: _flagged(detectors[one], found) for one, found in scores.items()},
        "unlike": [
            {
                "name": name,
                "rows": len(features),
                "flagged": {one: _flagged(detectors[one], detectors[one].scores(features)) for one in METHODS},
                **_areas(
                    {one: (found, detectors[one].scores(features)) for one, found in scores.items()}
                    | ({} if classifier.task != "classify" else {"doubt": (_doubt(said), _doubt(of_text))})
                ),
            }
            for name, (of_text, features) in of_unlike.items()
        ],
        "most_novel": _most_novel(detectors[method], scores[method], test),
    }
    detectors[method].save(Path(run.trained_model()))
    return sentences(content), write_novelty(content, output)


def _some(texts: Sequence[str], most: int, chosen: np.random.Generator) -> list[str]:
    """As many, by chance, in their order."""
    if len(texts) <= most:
        return list(texts)
    return [texts[i] for i in sorted(chosen.permutation(len(texts))[:most])]


def _texts(values: Sequence[object]) -> list[str]:
    return [text for value in values if value is not None and (text := str(value)).strip()]


def _made(
    test: Sequence[str], splits: Splits, rows: int, chosen: np.random.Generator, seed: int
) -> dict[str, list[str]]:
    """Texts that are at hand for every run and unlike any of its own."""
    drawn = random.Random(seed)

    def shuffled(text: str) -> str:
        characters = list(text)
        drawn.shuffle(characters)
        return "".join(characters)

    sample = "\n".join(column(splits.train, "text")[:1000])
    language = "en" if len(_HANGUL.findall(sample)) > len(_LATIN.findall(sample)) else "ko"
    foreign = read_file(embedded_file(f"reviews-{language}", "test"), FileOptions(), ["text"])
    name = {"en": "English reviews", "ko": "Korean reviews"}[language]
    return {
        "their characters shuffled": [shuffled(text) for text in test],
        name: _some(_texts(foreign["text"]), rows, chosen),
    }


def _read(classifier: Classifier, texts: Sequence[str], advance: Callable[[int], None]) -> tuple[Floats, Floats]:
    parts = []
    for start in range(0, len(texts), _CHUNK):
        some = texts[start : start + _CHUNK]
        parts.append(classifier.features(some))
        advance(len(some))
    return np.concatenate([said for said, _ in parts]), np.concatenate([features for _, features in parts])


def _doubt(said: Floats) -> Floats:
    """What a classifier has without any of this: how little it thinks of its likeliest label (Hendrycks and Gimpel
    2017, "A baseline for detecting misclassified and out-of-distribution examples")."""
    return 1 - said.max(axis=1)


def _flagged(detector: NoveltyDetector, scores: Floats) -> dict[str, float]:
    return asdict(wilson_interval(int(detector.is_novel(detector.shares(scores)).sum()), len(scores)))


def _areas(scores: dict[str, tuple[Floats, Floats]]) -> dict[str, Any]:
    """Of each method the area under the ROC curve of test texts against others, and the autoencoder's lead.

    Intervals by drawing the texts of both kinds anew, the same draws for all methods.
    """
    ordinary, unlike = (len(part) for part in next(iter(scores.values())))
    is_unlike = np.arange(ordinary + unlike) >= ordinary
    ranked = {name: RankedScores(np.concatenate(parts), is_unlike) for name, parts in scores.items()}
    generator = np.random.default_rng(0)
    draws: dict[str, list[float]] = {name: [] for name in ranked}
    for _ in range(SAMPLES):
        weights = np.concatenate(
            [np.bincount(generator.integers(0, count, count), minlength=count) for count in (ordinary, unlike)]
        )
        for name, of_method in ranked.items():
            draws[name].append(of_method.area(weights))
    drawn = {name: np.array(values) for name, values in draws.items()}
    areas = {name: of_method.area() for name, of_method in ranked.items()}
    first, second = METHODS
    lead = percentile_interval(areas[first] - areas[second], drawn[first] - drawn[second])
    return {
        "auroc": {name: asdict(percentile_interval(area, drawn[name])) for name, area in areas.items()},
        "lead": asdict(lead),
    }


def _most_novel(detector: NoveltyDetector, scores: Floats, texts: Sequence[str]) -> list[dict[str, Any]]:
    shares = detector.shares(scores)
    return [{"text": texts[i], "share": float(shares[i])} for i in np.argsort(-scores, kind="stable")[:_LISTED]]
