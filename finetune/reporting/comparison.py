"""`Comparison`: what several run directories say about the same test rows, checked, sorted and ready to show."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, assert_never

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import finetune
from finetune.errors import UserError
from finetune.recipe import (
    BagModel,
    CnnModel,
    DecoderModel,
    EncoderDecoderModel,
    EncoderModel,
    MajorityFloor,
    Model,
    Recipe,
    RecurrentModel,
    Seq2SeqModel,
    TfidfFloor,
    WordVectorModel,
)
from finetune.reporting.seeds import OverSeeds, summarize_seeds
from finetune.run import RunDirectory, open_run
from finetune.significance import PairedTest, compare_pairs, percentile_interval

FORMAT = 2
"""The version of the layout of comparison.json."""
MOST_CURVE_POINTS = 400
"""A plot some 450 pixels wide shows no more; longer logs are averaged down to it."""


@dataclass(frozen=True)
class Metric:
    """A value and the ends of its interval, None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def drawn(cls, value: float, draws: NDArray[np.float64]) -> Self:
        """With the interval of its draws, (n,)."""
        return cls(**asdict(percentile_interval(value, draws)))

    def overlaps(self, other: "Metric") -> bool | None:
        """Whether the closed intervals share a point; None where one has no interval."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return None
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class WithoutLeakedRows:
    """Scores on the test rows that do not stand in the training or validation rows too."""

    count: int
    left_out: int
    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class Latency:
    """Milliseconds that one validation text takes by itself, from the text to its label: percentiles of `count`."""

    p50: float
    p95: float
    count: int
    threads: int
    device: str


@dataclass(frozen=True)
class Cost:
    """What a run took: times in seconds, sizes in bytes; None where a run says nothing, as those of earlier versions.

    `model_bytes` is the weights and `disk_bytes` all of model/. `peak_memory_bytes` is the peak of the process by the
    end of the run, which the run did not raise where it is no more than `peak_memory_before_bytes`.
    """

    parameters: int | None
    trainable_parameters: int | None
    training_seconds: float | None
    training_rows_per_second: float | None
    scoring_rows_per_second: float | None
    model_bytes: int | None
    disk_bytes: int | None
    latency_ms: Latency | None
    peak_memory_bytes: int | None
    peak_memory_before_bytes: int | None
    peak_gpu_memory_bytes: int | None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        """From the section `cost` of a scores.json, whichever version wrote it."""
        known = {name: _finite(raw.get(name)) for name in cls.__dataclass_fields__}
        if (latency := known["latency_ms"]) is not None:
            known["latency_ms"] = Latency(**{name: latency[name] for name in Latency.__dataclass_fields__})
        return cls(**known)

    @property
    def raised_peak_memory(self) -> bool:
        """Whether the run took its process beyond what that had held before."""
        before = self.peak_memory_before_bytes
        return before is None or self.peak_memory_bytes is None or self.peak_memory_bytes > before


@dataclass(frozen=True)
class TrainingPoint:
    step: float
    epoch: float | None
    loss: float


@dataclass(frozen=True)
class ValidationPoint:
    step: float
    epoch: float | None
    loss: float | None
    accuracy: float | None
    bits_per_byte: float | None = None
    micro_f1: float | None = None


@dataclass(frozen=True)
class Curve:
    """The training log: `training` averaged down to `MOST_CURVE_POINTS`, `validation` as logged.

    `losses_not_finite` counts the training losses that were NaN or infinite; they are left out of `training`.
    """

    training: tuple[TrainingPoint, ...]
    validation: tuple[ValidationPoint, ...]
    losses_not_finite: int


@dataclass(frozen=True)
class Surety:
    """How sure a run is and how often it is right then, on the test rows.

    `reliability` has (confidence, accuracy, rows) for each bin of confidences, `coverage` has (share of the rows that
    are answered, accuracy among them), the surest rows first.
    """

    reliability: tuple[tuple[float, float, int], ...]
    coverage: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Tuning:
    """The search before a run: of one field several values were tried on validation, with so many training rows."""

    field: str
    tried: tuple[float, ...]
    chosen: float
    train_rows: int

    @classmethod
    def read(cls, run: RunDirectory) -> Self | None:
        """None where the values of the run's recipe were taken as they are."""
        if (found := run.tuning()) is None:
            return None
        return cls(found["field"], tuple(found["tried"]), found["chosen"], found["train_rows"])


@dataclass(frozen=True)
class RunSummary:
    """One run: what it is, how it scored on the test rows, what it cost and where it ran."""

    name: str
    path: str
    recipe_name: str
    family: str
    model: str
    is_floor: bool
    settings: Mapping[str, str | int | float]
    test_count: int
    times_scored: int
    confidence_level: float
    bootstrap_samples: int
    interval_method: str
    metrics: Mapping[str, Metric]
    per_class: Mapping[str, Mapping[str, Metric]]
    confusion_matrix: tuple[tuple[int, ...], ...]
    without_leaked_rows: WithoutLeakedRows | None
    cost: Cost
    curve: Curve
    environment: Mapping[str, Any]
    surety: Surety | None = None
    """None in runs that were scored before this was recorded."""
    tuning: Tuning | None = None
    paired: PairedTest | None = None
    """The best run against this one, row by row; None for the best, and where one of them has no predictions."""

    @property
    def accuracy(self) -> Metric:
        return self.metrics["accuracy"]


@dataclass(frozen=True)
class SplitSummary:
    count: int
    rows_fingerprint: str
    label_counts: Mapping[str, int]
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class DataSummary:
    """The data that `runs` share, and its flaws."""

    runs: tuple[str, ...]
    source: str
    revision: str | None
    files: tuple[str, ...]
    set_aside_from_train: tuple[str, ...]
    splits: Mapping[str, SplitSummary]
    repeated_train_rows: int
    leaked_test_rows_exact: int
    leaked_test_rows_normalized: int


@dataclass(frozen=True)
class Comparison:
    """Runs scored on the same test rows, the highest accuracy first."""

    format: int
    finetune_version: str
    labels: tuple[str, ...]
    test_count: int
    test_rows_fingerprint: str
    data: tuple[DataSummary, ...]
    runs: tuple[RunSummary, ...]
    over_seeds: OverSeeds | None = None
    """None where no recipe has several seeds."""

    def to_json(self, findings: Mapping[str, Sequence[str]]) -> str:
        """The comparison and its findings as JSON; equal comparisons give equal text."""
        content = {**asdict(self), "findings": findings}
        if self.over_seeds is None:
            del content["over_seeds"]
        return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def read_comparison(paths: Sequence[Path]) -> Comparison:
    """Read the run directories at `paths` and check that they may be compared.

    Raises:
        UserError: fewer than two runs, one of them twice or without test scores, or runs that were scored on different
            test rows or labels.
    """
    if len(paths) < 2:
        given = f"got {paths[0]} alone" if paths else "got none"
        raise UserError(f"a comparison needs two runs or more, {given}; add another run directory")
    refuse_repeats(paths)
    directories = [open_run(path) for path in paths]
    scores = scores_on_the_same_rows(directories, _label_scores)
    names = display_names(paths)
    runs = [_summarize(run, name) for run, name in zip(directories, names, strict=True)]
    accounts = {name: run.data() for run, name in zip(directories, names, strict=True)}
    recipes = {name: run.recipe() for run, name in zip(directories, names, strict=True)}
    # A run that was pushed may have come without its predictions.
    correct = {
        name: correct_rows(run)
        for run, name in zip(directories, names, strict=True)
        if run.predictions_file("test").exists()
    }
    return Comparison(
        format=FORMAT,
        finetune_version=finetune.__version__,
        labels=tuple(printable(label) for label in scores[0]["labels"]),
        test_count=scores[0]["count"],
        test_rows_fingerprint=scores[0]["rows_fingerprint"],
        data=group_data(accounts),
        runs=_with_tests(sorted(runs, key=_best_first), correct),
        over_seeds=summarize_seeds(recipes, accounts, correct),
    )


def correct_rows(run: RunDirectory) -> NDArray[np.bool_]:
    """Which test rows a run has right, (n,), in the order of their ids."""
    table = pq.read_table(run.predictions_file("test"), columns=["id", "reference", "predicted"]).sort_by("id")
    return pc.equal(table["reference"], table["predicted"]).to_numpy()


def _with_tests(runs: Sequence[RunSummary], correct: Mapping[str, NDArray[np.bool_]]) -> tuple[RunSummary, ...]:
    """The runs, each but the first with the test of that one against it."""
    best = correct.get(runs[0].name)
    if best is None:
        return tuple(runs)
    of_others = {run.name: correct[run.name] for run in runs[1:] if run.name in correct}
    tests = dict(zip(of_others, compare_pairs(best, list(of_others.values())), strict=True))
    return tuple(replace(run, paired=tests.get(run.name)) for run in runs)


def _best_first(run: RunSummary) -> tuple[float, str]:
    value = run.accuracy.value
    return (math.inf if value is None else -value, run.name)


# --- checks -----------------------------------------------------------------------------------------------------------


def refuse_repeats(paths: Sequence[Path]) -> None:
    """Raise UserError where a run directory is given twice."""
    seen: dict[Path, Path] = {}
    for path in paths:
        first = seen.setdefault(path.resolve(), path)
        if first is not path:
            raise UserError(f"{first} and {path} are the same run directory; give each run once")


def test_scores(run: RunDirectory) -> dict[str, Any]:
    """What a run scored on its test split, whatever its task; refused where it was not scored."""
    run.refuse_word_vectors()
    test: dict[str, Any] | None = run.scores()["splits"].get("test")
    if test is None:
        raise UserError(f"{run.path}: no test scores; run `finetune evaluate {run.path} --split test` first")
    return test


def _label_scores(run: RunDirectory) -> dict[str, Any]:
    test = test_scores(run)
    if "bits_per_byte" in test.get("metrics", {}):
        raise UserError(f"{run.path} learnt from text ({run.recipe().task}), which does not compare with labels")
    if "rmse" in test.get("metrics", {}):
        raise UserError(f"{run.path} rates texts; `compare` knows labels only, the run's scores.json has its errors")
    if "micro_f1" in test.get("metrics", {}):
        raise UserError(f"{run.path} gives a text several labels, which does not compare with one label for each")
    missing = [key for key in ("count", "rows_fingerprint", "labels", "metrics") if key not in test]
    if missing or "accuracy" not in test["metrics"]:
        raise UserError(f"{run.scores_file}: no {(missing or ['accuracy'])[0]} of the test split; score the run again")
    return test


def scores_on_the_same_rows(
    directories: Sequence[RunDirectory], scores_of: Callable[[RunDirectory], dict[str, Any]]
) -> list[dict[str, Any]]:
    """What each run scored on its test split; UserError where labels or rows are not those of the first."""
    tests = [scores_of(run) for run in directories]
    for run, test in zip(directories[1:], tests[1:], strict=True):
        _refuse_other_rows(directories[0], tests[0], run, test)
    return tests


def _refuse_other_rows(
    first: RunDirectory, first_test: Mapping[str, Any], other: RunDirectory, other_test: Mapping[str, Any]
) -> None:
    """Raise UserError where two runs were scored on other labels or other test rows."""
    if first_test["labels"] != other_test["labels"]:
        raise UserError(
            f"{first.path} has the labels {_listed(first_test['labels'])}, {other.path} has "
            f"{_listed(other_test['labels'])}; train both with the same data.labels"
        )
    if first_test["rows_fingerprint"] != other_test["rows_fingerprint"]:
        raise UserError(
            f"{first.path} and {other.path} were scored on different test rows ({first_test['count']} and "
            f"{other_test['count']}); train both on one data set with the same data.split_seed and data.max_test_rows"
        )


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(printable(label) for label in labels[:5])
    return shown if len(labels) <= 5 else f"{shown} and {len(labels) - 5} more"


# --- names ------------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """`text` on one line, without control characters: names come from file systems and data, and go to terminals."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def display_names(paths: Sequence[Path]) -> list[str]:
    """A name per run: the directory's, with as many parents before it as tell runs of one name apart."""
    parts = [[printable(part) for part in _named_parts(path.resolve())] for path in paths]

    def shortened(index: int, depth: int) -> str:
        return "/".join(parts[index][-depth:])

    names = []
    for i in range(len(parts)):
        depth = 1
        rivals = [j for j in range(len(parts)) if j != i]
        while depth < len(parts[i]) and any(shortened(j, depth) == shortened(i, depth) for j in rivals):
            depth += 1
        names.append(shortened(i, depth))
    return names


def _named_parts(path: Path) -> Sequence[str]:
    """The parts of a path; of a snapshot in the Hub's cache, `models--owner/name/snapshots/commit`, owner and name."""
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.split("--")[1:]
    return path.parts


def describe_model(model: Model) -> str:
    """A line that tells what the model is, such as "BiLSTM, 1 x 256, max pooling"."""
    match model:
        case MajorityFloor():
            return "majority label"
        case WordVectorModel():
            return f"word vectors ({model.method}), {model.dimensions} dimensions"
        case TfidfFloor():
            ngrams = f"{model.min_ngram}-{model.max_ngram}" if model.min_ngram < model.max_ngram else model.max_ngram
            return f"TF-IDF {model.analyzer} {ngrams} + logistic regression"
        case RecurrentModel():
            cell = ("Bi" if model.bidirectional else "") + model.cell.upper()
            pooling = "last state" if model.pooling == "last" else f"{model.pooling} pooling"
            return f"{cell}, {model.num_layers} x {model.hidden_size}, {pooling}"
        case Seq2SeqModel():
            attention = "no" if model.attention == "none" else model.attention
            cells = f"Bi{model.cell.upper()} + {model.cell.upper()}"
            return f"{cells} from scratch, {model.num_layers} x {model.hidden_size}, {attention} attention"
        case BagModel():
            return f"bag of embeddings, {model.embedding_size}, {model.pooling} pooling"
        case CnnModel():
            return f"CNN, {model.filters} filters of {', '.join(map(str, model.kernel_sizes))} tokens each"
        case EncoderModel() | DecoderModel() | EncoderDecoderModel():
            if model.from_scratch is not None:
                sizes, kind = model.from_scratch, "BERT-type" if model.family == "encoder" else "GPT-type"
                return f"{kind} {model.family} from scratch, {sizes.num_hidden_layers} x {sizes.hidden_size}"
            origin = str(model.model_name_or_path)
            # A path of this machine says nothing to a reader of the page beyond its last part.
            name = printable(Path(origin).name if Path(origin).is_absolute() else origin)
            return f"{name} {describe_tuning(model)}"
        case _:
            assert_never(model)


def describe_tuning(model: EncoderModel | DecoderModel | EncoderDecoderModel) -> str:
    """What was done to a pretrained model, such as "with a new head over the mean of all states, itself frozen"."""
    how = {"frozen": "with a new head, itself frozen", "lora": "fine-tuned by LoRA"}.get(model.tuning, "fine-tuned")
    if not isinstance(model, EncoderModel):
        return how
    if model.tuning == "last_layers":
        how = f"with its last {_layers(model.trained_layers)} fine-tuned"
    if model.reinitialized_layers:
        how += f", the last {_layers(model.reinitialized_layers)} anew"
    return how if model.pooling == "cls" else f"{how}, {model.pooling} pooling"


def _layers(count: int) -> str:
    return "layer" if count == 1 else f"{count} layers"


def _settings(recipe: Recipe) -> dict[str, str | int | float]:
    settings: dict[str, str | int | float] = {"seed": recipe.seed}
    if not isinstance(recipe.model, MajorityFloor | TfidfFloor):
        training = recipe.training
        settings |= {
            "text.max_length": recipe.text.max_length,
            "training.num_train_epochs": training.num_train_epochs,
            "training.batch_size": training.batch_size,
            "training.learning_rate": training.learning_rate,
        }
        if training.max_steps is not None:
            settings["training.max_steps"] = training.max_steps
    return settings


# --- runs -------------------------------------------------------------------------------------------------------------


def _summarize(run: RunDirectory, name: str) -> RunSummary:
    recipe = run.recipe()
    scores = run.scores()
    test = scores["splits"]["test"]
    return RunSummary(
        name=name,
        path=printable(run.path.as_posix()),
        recipe_name=recipe.name,
        family=recipe.model.family,
        model=describe_model(recipe.model),
        is_floor=isinstance(recipe.model, MajorityFloor | TfidfFloor),
        settings=_settings(recipe),
        test_count=test["count"],
        times_scored=test.get("times_scored", 1),
        confidence_level=test.get("confidence_level", recipe.evaluation.confidence_level),
        bootstrap_samples=test.get("bootstrap_samples", recipe.evaluation.bootstrap_samples),
        interval_method=test.get("interval_method", "percentile"),
        metrics=_metrics(test["metrics"]),
        per_class={printable(label): _metrics(metrics) for label, metrics in test.get("per_class", {}).items()},
        confusion_matrix=tuple(tuple(row) for row in test.get("confusion_matrix", ())),
        without_leaked_rows=_without_leaked_rows(test.get("without_leaked_rows")),
        cost=Cost.read(scores.get("cost", {})),
        curve=read_curve(run),
        environment=run.environment(),
        surety=_surety(test),
        tuning=Tuning.read(run),
    )


def _surety(test: Mapping[str, Any]) -> Surety | None:
    if "reliability" not in test or "coverage" not in test:
        return None
    bins = tuple((found["confidence"], found["accuracy"], found["count"]) for found in test["reliability"])
    coverage = zip(test["coverage"]["coverage"], test["coverage"]["accuracy"], strict=True)
    return Surety(bins, tuple(coverage))


def _finite(value: Any) -> Any:
    """None for NaN and the infinities, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _metrics(raw: Mapping[str, Mapping[str, float | None]]) -> dict[str, Metric]:
    return {
        name: Metric(*(_finite(interval.get(key)) for key in ("value", "low", "high")))
        for name, interval in raw.items()
    }


def _without_leaked_rows(raw: Mapping[str, Any] | None) -> WithoutLeakedRows | None:
    return None if raw is None else WithoutLeakedRows(raw["count"], raw["left_out"], _metrics(raw["metrics"]))


def read_curve(run: RunDirectory) -> Curve:
    """The training log of a run.

    Raises:
        UserError: it is damaged.
    """
    training: list[TrainingPoint] = []
    validation: list[ValidationPoint] = []
    not_finite = 0
    try:
        for record in run.log():
            step, epoch = float(record["step"]), record.get("epoch")
            if (metrics := record.get("validation")) is not None:
                values = {
                    name: _finite(metrics.get(name)) for name in ("loss", "accuracy", "bits_per_byte", "micro_f1")
                }
                validation.append(ValidationPoint(step, epoch, **values))
            elif (loss := record.get("loss")) is not None:
                if math.isfinite(loss):
                    training.append(TrainingPoint(step, epoch, loss))
                else:
                    not_finite += 1
    except json.JSONDecodeError:
        raise UserError(f"{run.log_file}: damaged; train the run again") from None
    return Curve(_thin(training), tuple(validation), not_finite)


def _thin(points: Sequence[TrainingPoint]) -> tuple[TrainingPoint, ...]:
    """Means of equal groups of neighbours, at most `MOST_CURVE_POINTS` of them."""
    size = math.ceil(len(points) / MOST_CURVE_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)] if size > 1 else []
    return tuple(_mean_point(group) for group in groups) if groups else tuple(points)


def _mean_point(points: Sequence[TrainingPoint]) -> TrainingPoint:
    epochs = [point.epoch for point in points if point.epoch is not None]
    return TrainingPoint(
        step=math.fsum(point.step for point in points) / len(points),
        epoch=math.fsum(epochs) / len(epochs) if len(epochs) == len(points) else None,
        loss=math.fsum(point.loss for point in points) / len(points),
    )


# --- data -------------------------------------------------------------------------------------------------------------


def group_data(accounts: Mapping[str, Mapping[str, Any]]) -> tuple[DataSummary, ...]:
    """One summary for all runs whose data are the same; what a run's own tokenizer makes of them is no part of it."""
    groups: dict[str, list[str]] = {}
    for name, account in accounts.items():
        groups.setdefault(json.dumps(asdict(summarize_data(account, ())), sort_keys=True), []).append(name)
    return tuple(summarize_data(accounts[names[0]], names) for names in sorted(map(sorted, groups.values())))


def summarize_data(account: Mapping[str, Any], runs: Sequence[str]) -> DataSummary:
    """What data.json of `runs` says."""
    leaked = account.get("leaked_test_rows", {})
    return DataSummary(
        runs=tuple(runs),
        source=printable(account["source"]),
        revision=account.get("revision"),
        files=tuple(dict.fromkeys(printable(file["name"]) for file in account.get("files", {}).values())),
        set_aside_from_train=tuple(account.get("set_aside_from_train", ())),
        splits={
            name: SplitSummary(
                count=split["count"],
                rows_fingerprint=split["rows_fingerprint"],
                label_counts={printable(label): count for label, count in split.get("label_counts", {}).items()},
                dropped=split.get("dropped", {}),
            )
            for name, split in account["splits"].items()
        },
        repeated_train_rows=account.get("repeated_train_rows", 0),
        leaked_test_rows_exact=leaked.get("exact", 0),
        leaked_test_rows_normalized=leaked.get("normalized", 0),
    )
