"""train_log.jsonl, and the tracker that the recipe names beside it."""

import json
import math
import time
from typing import Any, BinaryIO

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
        """Nothing is written before `begin`."""
        self.accelerator = accelerator
        self.file = run.log_file
        self.lines: BinaryIO | None = None
        accelerator.init_trackers(run.name)

    def begin(self, step: int) -> None:
        """Keep the records up to `step`, none for 0; what a killed run wrote after its checkpoint goes."""
        if not self.accelerator.is_main_process:
            return
        kept = []
        for line in self.file.read_bytes().splitlines(keepends=True) if step and self.file.exists() else []:
            try:
                record = json.loads(line)
            except ValueError:
                break  # the line that the run was killed in
            if record["step"] > step:
                break
            kept.append(line)
        # In place by a rename: a kill right here must not cost the records that are kept.
        shortened = self.file.with_name(f".{self.file.name}")
        shortened.write_bytes(b"".join(kept))
        shortened.replace(self.file)
        self.lines = self.file.open("ab")

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
