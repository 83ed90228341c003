"""Where a run happens: device, precision, threads and versions, chosen by the program and recorded."""

import gc
import importlib.util
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

import finetune
from finetune.errors import UserError
from finetune.recipe import VALIDATION_METRICS, Recipe, TransformerModel, with_values

_PACKAGES = (
    "accelerate",
    "datasets",
    "evaluate",
    "gensim",
    "numpy",
    "peft",
    "safetensors",
    "scikit-learn",
    "scipy",
    "sentencepiece",
    "tokenizers",
    "torch",
    "transformers",
)
# What `accelerate launch` sets for each; without a GPU, Accelerate would leave FSDP out in silence.
_SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every "auto" replaced by what this machine and number of processes make of it.

    Raises:
        UserError: the batch does not divide among the processes, or fp16 is asked for without a GPU.
    """
    training = recipe.training
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    share, remainder = divmod(training.batch_size, world_size)
    if remainder:
        raise UserError(f"training.batch_size {training.batch_size} does not divide among {world_size} processes")
    micro = share if training.micro_batch_size == "auto" else training.micro_batch_size
    if share % micro:
        raise UserError(
            f"training.micro_batch_size {micro} does not divide the {share} rows per process of "
            f"training.batch_size {training.batch_size} on {world_size} process(es)"
        )
    precision = training.mixed_precision
    if precision == "auto":
        precision = "bf16" if _computes_bf16(recipe) else "no"
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError("training.mixed_precision fp16 needs a GPU; use bf16 or no")
    tracker = training.report_to
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        # Accelerate would pass over a missing tracker in silence.
        raise UserError(f"training.report_to {tracker}: not installed; `pip install {tracker}`, or set none")
    threads = _available_threads() if training.threads == "auto" else training.threads
    metric = training.metric_for_best_model
    chosen = {
        "micro_batch_size": micro,
        "mixed_precision": precision,
        "threads": threads,
        "metric_for_best_model": next(iter(VALIDATION_METRICS[recipe.task]), metric) if metric == "auto" else metric,
    }
    if not isinstance(recipe.model, TransformerModel):
        return with_values(recipe, training=chosen)
    attention = recipe.model.attn_implementation
    if attention == "auto":
        # On a processor the backward pass of sdpa in bf16 takes several times as long as that of eager attention.
        attention = "eager" if precision == "bf16" and not torch.cuda.is_available() else "sdpa"
    return with_values(recipe, training=chosen, model={"attn_implementation": attention})


def _computes_bf16(recipe: Recipe) -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # On a processor only matrix products gain from bf16, where it has the instructions; recurrent cells do not.
    capabilities = torch.cpu.get_capabilities()
    has_instructions = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return isinstance(recipe.model, TransformerModel) and has_instructions


def _available_threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def start_accelerator(recipe: Recipe, tracking_directory: Path) -> Accelerator:
    """The Accelerator of a resolved recipe: threads, seed and precision set, whatever launched the process.

    Raises:
        UserError: the launcher asks for weights in shards.
    """
    training = recipe.training
    for variable, name in _SHARDING.items():
        if os.environ.get(variable, "false").lower() == "true":
            raise UserError(
                f"{name} keeps weights in shards, and checkpoints here hold them whole; use `accelerate launch "
                "--multi_gpu` or torchrun instead: each GPU then has a copy of the model"
            )
    assert training.threads != "auto"
    # Launchers set OMP_NUM_THREADS=1 behind one's back; sums then come out differently from a plain start.
    torch.set_num_threads(training.threads)
    # One process may train several runs in turn, each with a precision of its own.
    AcceleratorState._reset_state()
    has_device = torch.cuda.is_available() or torch.backends.mps.is_available()
    accelerator = Accelerator(
        mixed_precision=training.mixed_precision,
        cpu=not has_device,
        log_with=None if training.report_to == "none" else training.report_to,
        project_dir=str(tracking_directory),
    )
    set_seed(recipe.seed)
    return accelerator


def end(accelerator: Accelerator) -> None:
    """Wait for all processes and end their group; the caller no longer holds the prepared model.

    DistributedDataParallel must be gone before the group is: where it holds the group's last reference, it ends the
    group while it holds Python's lock, and waits for ever for a thread of the group that wants that lock.
    """
    if accelerator.num_processes > 1:
        accelerator.free_memory()
    gc.collect()  # among all that is imported it takes half a second: once, for a study of a hundred short runs
    accelerator.end_training()


def describe(recipe: Recipe, accelerator: Accelerator, command: Sequence[str]) -> dict[str, Any]:
    """What environment.json records at the start of a run."""
    return {
        "finetune_version": finetune.__version__,
        **_git_state(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "platform": platform.system(),
        "processor": platform.processor() or platform.machine(),
        "device": device_name(accelerator),
        "threads": recipe.training.threads,
        "mixed_precision": recipe.training.mixed_precision,
        "world_size": accelerator.num_processes,
        "seed": recipe.seed,
        "command": list(command),
        "start": now(),
        "end": None,
    }


def now() -> str:
    """This moment in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def device_name(accelerator: Accelerator) -> str:
    """The name of a GPU; of anything else its kind, such as "cpu"."""
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return str(accelerator.device.type)


def _git_state() -> dict[str, Any]:
    """The commit of the code where it runs from a checkout; None where it was installed from a wheel."""
    package = Path(finetune.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # A commit of a checkout that merely contains the environment (site-packages) would say nothing of this code.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "--", "."))}
