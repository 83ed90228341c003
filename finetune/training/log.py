"""train_log.jsonl, and the tracker that the recipe names beside it."""

import json
import math
import time
from typing import Any

from accelerate import Accelerator

from finetune.run import RunDirectory


class Timer:
    """Seconds since it was made, on a clock that is never set back."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self.started


class TrainingLog:
    """One JSON record per line; written by the main process only."""

    def __init__(self, run: RunDirectory, accelerator: Accelerator) -> None:
        """Start with an empty log; `cut_back` brings an earlier one back."""
        self.accelerator = accelerator
        self.file = run.log_file
        self.earlier = self.file.read_bytes() if self.file.exists() else b""
        accelerator.init_trackers(run.name)
        self.lines = self.file.open("wb") if accelerator.is_main_process else None

    def cut_back(self, step: int) -> None:
        """Keep the earlier records up to `step`; what a killed run wrote after its checkpoint, whole or not, goes."""
        if self.lines is None:
            return
        for line in self.earlier.splitlines(keepends=True):
            try:
                record = json.loads(line)
            except ValueError:
                break  # the line that the run was killed in
            if record["step"] > step:
                break
            self.lines.write(line)
        self.lines.flush()

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; its `step` is the optimizer steps done."""
        if self.lines is not None:
            self.lines.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            self.lines.flush()
        numbers = {key: value for key, value in record.items() if isinstance(value, int | float) and key != "step"}
        numbers |= {f"validation/{key}": value for key, value in record.get("validation", {}).items()}
        self.accelerator.log({k: v for k, v in numbers.items() if math.isfinite(v)}, step=record["step"])

    def close(self) -> None:
        if self.lines is not None:
            self.lines.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()
