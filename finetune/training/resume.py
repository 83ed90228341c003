"""Who may write a run directory, and whether a stopped run may go on: same recipe, same data, same processes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from filelock import FileLock, Timeout

from finetune.data import Splits
from finetune.errors import UserError
from finetune.progress import say
from finetune.recipe import Recipe, differences
from finetune.run import RunDirectory, create_run
from finetune.training import environment
from finetune.training.checkpoint import find_checkpoint


@contextmanager
def claim(run: RunDirectory, accelerator: Accelerator, *, replaces: bool, overwrite: bool) -> Iterator[None]:
    """Hold the run directory for this training alone; make it anew where it `replaces` what is there.

    The main process decides, and all processes refuse together. The lock goes with the process, however it ends.

    Raises:
        UserError: another process writes this run, or it exists and may not be replaced.
    """
    lock = FileLock(run.path.with_name(f".{run.name}.lock"), timeout=0)
    refusal: str | None = None
    if accelerator.is_main_process:
        try:
            run.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            if replaces:
                create_run(run.path, overwrite=overwrite)
            run.path.mkdir(exist_ok=True)
        except Timeout:
            refusal = f"{run.path}: another process is writing this run; wait for it, or choose another --name"
        except UserError as error:
            refusal = str(error)
        except OSError as error:
            refusal = f"{run.path}: {error.strerror}"
    refusal = _from_main_process(refusal, accelerator)
    try:
        if refusal is not None:
            raise UserError(refusal)
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                run.path.rmdir()  # only an empty one: bad data was found before anything was written
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def check_unchanged(given: Recipe, run: RunDirectory) -> Recipe:
    """The recorded recipe of a run that is to go on, if `given` is the same wherever it leaves no choice open.

    Raises:
        UserError: fields differ; each is named with both values.
    """
    recorded = run.recipe()
    changed = differences(given, recorded)
    if changed:
        raise UserError(
            f"{run.path}: --resume needs the recipe that the run began with, but {'; '.join(changed)}. Put it back, or "
            "begin a new run with another --name"
        )
    return environment.resolve(recorded)


def check_surroundings(
    run: RunDirectory, splits: Splits, vocabulary: str | None, surroundings: dict[str, Any]
) -> dict[str, Any]:
    """The environment record of a run that goes on: as it began, with the moment of resuming added.

    Raises:
        UserError: the rows, the tokenizer or the number of processes are not those that the run began with.
    """
    if run.data_file.exists():
        recorded = run.data()["splits"]
        for split, now in splits.report["splits"].items():
            before = recorded[split]
            if now["rows_fingerprint"] != before["rows_fingerprint"]:
                raise UserError(
                    f"{run.path}: --resume needs the data that the run began with, but the {split} split has changed "
                    f"({before['count']:,} rows then, {now['count']:,} now). Restore the data, or begin a new run"
                )
        if vocabulary != run.data().get("tokenizer_sha256", vocabulary):
            raise UserError(
                f"{run.path}: --resume needs the tokenizer that the run began with, but it has changed. Restore it, or "
                "begin a new run"
            )
    if not run.environment_file.exists():
        return surroundings
    began = run.environment()
    if began["world_size"] != surroundings["world_size"]:
        raise UserError(
            f"{run.path}: the run began with {began['world_size']} process(es) and would go on with "
            f"{surroundings['world_size']}; launch it as before"
        )
    return {**surroundings, "start": began["start"], "resumed": [*began.get("resumed", []), environment.now()]}


def shared_checkpoint(run: RunDirectory, accelerator: Accelerator) -> Path | None:
    """The newest intact checkpoint, found by the main process for all; None to begin from the start."""
    found = find_checkpoint(run.checkpoints_directory, say) if accelerator.is_main_process else None
    return _from_main_process(found, accelerator)


def _from_main_process(value: Any, accelerator: Accelerator) -> Any:
    """What the main process has, on every process."""
    return gather_object([value])[0] if accelerator.num_processes > 1 else value
