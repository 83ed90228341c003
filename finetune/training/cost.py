"""What a run costs whoever uses it: how long one text takes, what lies on disk, and how much memory it took."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from finetune.data.splits import column
from finetune.models import Floor
from finetune.predict import Classifier
from finetune.run import RunDirectory
from finetune.tasks import given_labels

WARM_UPS = 5
"""Texts that are answered first and not counted: caches fill, libraries choose their kernels."""
MOST_TEXTS = 100
MOST_SECONDS = 2.0
"""No further text is begun after so many seconds, warm-ups included; one is counted in any case."""

Question = tuple[str, str | None]
"""A text, and the second one where a row is a pair."""


def model_latency(classifier: Classifier, validation: datasets.Dataset, device: str) -> dict[str, Any]:
    """`measure_latency` of a model, from the text over its tokens to its label, or its rating."""

    def answer(text: str, pair: str | None) -> object:
        outputs = classifier.classify_one(text, pair)
        match classifier.task:
            case "rate":
                return float(outputs[0, 0])
            case "multi_label":
                return given_labels(outputs[0], classifier.labels)
            case _:
                return classifier.answers(outputs)

    return measure_latency(answer, some_questions(validation), torch.get_num_threads(), device)


def floor_latency(floor: Floor, validation: datasets.Dataset) -> dict[str, Any]:
    """`measure_latency` of a floor, which computes on one thread of the processor."""
    return measure_latency(lambda text, _: floor.outputs([text]).argmax(), some_questions(validation), 1, "cpu")


def measure_latency(
    answer: Callable[[str, str | None], object], questions: Sequence[Question], threads: int, device: str
) -> dict[str, Any]:
    """How long one question takes by itself: `p50` and `p95` in milliseconds, of `count` questions.

    `threads` and `device` are those that the caller answers with. The answers must have reached the processor.
    """
    end = time.perf_counter() + MOST_SECONDS
    for question in questions[:WARM_UPS]:
        answer(*question)
        if time.perf_counter() > end:
            break
    took: list[float] = []
    for question in questions:
        started = time.perf_counter()
        answer(*question)
        stopped = time.perf_counter()
        took.append(1000 * (stopped - started))
        if stopped > end:
            break
    p50, p95 = np.percentile(took, [50, 95]).tolist()
    return {"p50": p50, "p95": p95, "count": len(took), "threads": threads, "device": device}


def some_questions(rows: datasets.Dataset) -> list[Question]:
    """At most `MOST_TEXTS` of the rows, evenly spread: a file may be sorted by label or by length."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(MOST_TEXTS, len(rows))).round().astype(int))
    chosen = rows.select(places.tolist())
    texts = column(chosen, "text")
    pairs = column(chosen, "text_pair") if "text_pair" in rows.column_names else [None] * len(texts)
    return list(zip(texts, pairs, strict=True))


def peak_memory() -> int | None:
    """The most bytes of memory that this process has held since its start; None where the system does not tell.

    Resident memory: with libraries, and with files that are mapped and were read. Linux is asked for what this program
    held, since the count that getrusage gives goes on from the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, others kilobytes


def begin_memory(device: torch.device) -> int | None:
    """`peak_memory` before a run, with which `describe_resources` tells whether the run raised it.

    The peak of a GPU begins anew; that of the process cannot.
    """
    if device.type == "cuda":
        torch.cuda.init()  # before the first tensor there are no statistics to begin anew, and asking is an error
        torch.cuda.reset_peak_memory_stats(device)
    return peak_memory()


def describe_resources(run: RunDirectory, device: torch.device, peak_before: int | None) -> dict[str, Any]:
    """What a run took, in bytes: all files of model/, and the peak of the memory of its (main) process.

    `peak_memory_bytes` is the process's peak by the end of the run. One process may train several runs in turn: where
    it is no more than `peak_memory_before_bytes`, the run itself needed that much at most. The GPU's peak is that of
    the run's tensors.
    """
    peak = peak_memory()
    if peak is not None and peak_before is not None:
        peak = max(peak, peak_before)  # the kernel rounds
    files = [file for file in run.model_directory.rglob("*") if file.is_file()]
    return {
        "disk_bytes": sum(file.stat().st_size for file in files) if files else None,
        "peak_memory_bytes": peak,
        "peak_memory_before_bytes": peak_before,
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }
