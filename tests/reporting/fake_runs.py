"""Run directories as training would leave them, with numbers that a test chooses."""

import copy
import json
import math
import random
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.recipe import parse_recipe
from finetune.run import RunDirectory, create_run

MODELS: dict[str, dict[str, Any]] = {
    "bilstm": {"family": "recurrent", "bidirectional": True, "hidden_size": 256, "pooling": "max"},
    "gru": {"family": "recurrent", "cell": "gru"},
    "tfidf": {"family": "tfidf"},
    "majority": {"family": "majority"},
    "scratch": {"family": "encoder", "from_scratch": {}},
    "bert": {"family": "encoder", "model_name_or_path": "klue/bert-base"},
}
DATA: dict[str, Any] = {
    "source": "nsmc",
    "labels": ["negative", "positive"],
    "splits": {
        split: {"count": count, "rows_fingerprint": split * 8, "label_counts": {"negative": count // 2 + 1,
                "positive": count - count // 2 - 1}, "dropped": {"empty": empty}}
        for split, count, empty in (("train", 135000, 5), ("validation", 14995, 0), ("test", 49997, 3))
    },
    "repeated_train_rows": 0,
    "leaked_test_rows": {"exact": 0, "normalized": 0},
}  # fmt: skip
ENVIRONMENT: dict[str, Any] = {
    "finetune_version": "0.1.0",
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
    "packages": {"torch": "2.9.0", "transformers": "5.0.0"},
    "device": "cpu",
    "processor": "Fast 9000",
    "threads": 2,
    "command": ["finetune", "train", "my recipe.yaml"],
    "world_size": 1,
    "seed": 42,
    "mixed_precision": "no",
    "start": "2026-01-01T00:00:00+00:00",
    "end": "2026-01-01T00:03:12+00:00",
}

COST: dict[str, Any] = {
    "parameters": 1234567,
    "trainable_parameters": 1234567,
    "training_seconds": 192.0,
    "training_rows_per_second": 2109.4,
    "scoring_rows_per_second": 5210.0,
    "model_bytes": 4938268,
    "disk_bytes": 5_200_000,
    "latency_ms": {"p50": 2.34, "p95": 12.6, "count": 100, "threads": 2, "device": "cpu"},
    "peak_memory_bytes": 1_430_000_000,
    "peak_memory_before_bytes": 600_000_000,
    "peak_gpu_memory_bytes": None,
}
OF_EARLIER_VERSIONS = tuple(COST)[:6]
"""What runs said of their cost before the rest was recorded."""

MakeRun = Callable[..., RunDirectory]


def interval(value: float | None, half: float = 0.003) -> dict[str, float | None]:
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": value - half, "high": value + half}


def scores_of_test(accuracy: float | None, labels: Sequence[str], half: float, count: int) -> dict[str, Any]:
    right = round((accuracy or 0) * count / len(labels))
    wrong = (count // len(labels) - right) // max(len(labels) - 1, 1)
    value = interval(accuracy, half)
    return {
        "count": count,
        "rows_fingerprint": "test" * 8,
        "times_scored": 1,
        "labels": list(labels),
        "confidence_level": 0.95,
        "bootstrap_samples": 1000,
        "metrics": {name: dict(value) for name in ("accuracy", "macro_f1", "weighted_f1", "mcc", "roc_auc", "loss")},
        "per_class": {label: {name: dict(value) for name in ("precision", "recall", "f1")} for label in labels},
        "confusion_matrix": [[right if i == j else wrong for j in range(len(labels))] for i in range(len(labels))],
    }


def training_log(steps: int) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        loss = 0.3 + 0.4 * math.exp(-step / 150) + 0.03 * math.sin(step * 1.7)
        records.append({"step": step, "epoch": step / 100, "loss": loss, "learning_rate": 1e-3, "grad_norm": 1.0,
                        "targets": 320, "seconds": step / 10})  # fmt: skip
        if step % 100 == 0:
            validation = {"loss": 0.36 + 0.2 * math.exp(-step / 150), "accuracy": 0.86 - 0.1 * math.exp(-step / 150)}
            records.append({"step": step, "epoch": step / 100, "seconds": step / 10, "validation": validation})
    return records


def with_predictions(run: RunDirectory, wrong: Container[int], count: int = 1000) -> RunDirectory:
    """The run, wrong in the rows `wrong`; its rows stand in an order of their own."""
    order = random.Random(run.name).sample(range(count), count)
    references = ["positive" if row % 3 else "negative" for row in order]
    other = {"positive": "negative", "negative": "positive"}
    predicted = [other[label] if row in wrong else label for row, label in zip(order, references, strict=True)]
    columns = {"id": [f"test-{row:05d}" for row in order], "reference": references, "predicted": predicted}
    run.predictions_file("test").parent.mkdir()
    pq.write_table(pa.table(columns), run.predictions_file("test"))
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run("bilstm", 0.87, test={...}, data={...})`: a run of that name, with parts of its files replaced."""

    def make(
        name: str,
        accuracy: float | None = 0.87,
        *,
        model: str | Mapping[str, Any] | None = None,
        seed: int = 42,
        labels: Sequence[str] = ("negative", "positive"),
        half: float = 0.003,
        count: int = 49997,
        test: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        cost: Mapping[str, Any] | None = None,
        log: Sequence[Mapping[str, Any]] | None = None,
        at: Path | None = None,
    ) -> RunDirectory:
        run = create_run(at or tmp_path / "runs" / name)
        chosen = MODELS[name if model is None else model] if not isinstance(model, Mapping) else dict(model)
        recipe = {"name": "recipe", "seed": seed, "data": {"train_file": "x.csv"}, "model": chosen}
        run.write_recipe(parse_recipe(recipe))
        run.write_json(run.environment_file, {**ENVIRONMENT, **(environment or {})})
        run.write_json(run.data_file, {**copy.deepcopy(DATA), "labels": list(labels), **(data or {})})
        scores = {
            "splits": {"test": {**scores_of_test(accuracy, labels, half, count), **(test or {})}},
            "cost": COST if cost is None else dict(cost),
        }
        run.write_json(run.scores_file, scores)
        is_floor = chosen["family"] in ("tfidf", "majority")
        records = (() if is_floor else training_log(300)) if log is None else log
        if records:
            run.log_file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return run

    return make
