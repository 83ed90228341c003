"""Kill a training at random moments, resume it, and hold the result against the uninterrupted run's.

    python tests/invariants/kill_loop.py --kills 20                 every family, 20 kills each
    python tests/invariants/kill_loop.py --kills 3 --variant lstm   one of them

Each kill is `kill -9` of all processes at a random moment of the training; then the same command with --resume.
When the run is through, its weights (sha256), log and test scores, seconds aside, must equal those of the run that was
never killed.
"""

import argparse
import contextlib
import hashlib
import io
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from decoders import DECODERS, WRITERS, write_decoder
from kobert_standin import write_split_layout
from reviews import MODELS, write_csv, write_ratings, write_topics

import finetune.cli
from finetune.recipe import dump_recipe, parse_recipe


@dataclass(frozen=True)
class Variant:
    """One way to train: the model, the options that differ from the default, and the number of processes."""

    model: str
    training: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    task: str = "classify"
    sampling: bool = False
    """Subword sampling, with a tokenizer in KoBERT's layout."""


VARIANTS = {
    "encoder": Variant("encoder"),
    "rnn": Variant("rnn"),
    "lstm": Variant("lstm"),
    "gru": Variant("gru"),
    "bilstm-stacked": Variant("bilstm-stacked"),
    "bigru-max": Variant("bigru-max"),
    "accumulation": Variant("bigru-max", {"micro_batch_size": 4}),
    "bf16": Variant("encoder", {"mixed_precision": "bf16"}),
    "workers": Variant("lstm", {"dataloader_num_workers": 2}),
    "rate": Variant("bigru-max", task="rate"),
    "multi-label": Variant("lstm", task="multi_label"),
    "two-processes-multi-label": Variant("encoder", {"micro_batch_size": 4}, processes=2, task="multi_label"),
    "sgd": Variant("lstm", {"optimizer": "sgd", "lr_scheduler_type": "one_cycle", "learning_rate": 0.1}),
    "adafactor": Variant("encoder", {"optimizer": "adafactor", "gradual_unfreezing": True}),
    "layerwise": Variant("encoder", {"layerwise_lr_decay": 0.7, "lr_scheduler_type": "inverse_sqrt"}),
    "sampling": Variant("encoder", {"dataloader_num_workers": 2}, sampling=True),
    "masked": Variant("encoder", {"dataloader_num_workers": 2}, task="masked_lm"),
    "two-processes-masked": Variant("encoder", {"micro_batch_size": 4}, processes=2, task="masked_lm"),
    "decoder": Variant("gpt2-scratch", task="generate"),
    "lora": Variant("llama", task="generate"),
    "two-processes-lora": Variant("gpt2", processes=2, task="generate"),
    "two-processes-adaptive": Variant("lstm-adaptive", processes=2, task="generate"),
    "stream": Variant("gru-stacked", {"truncated_bptt": 7, "micro_batch_size": 8}, task="generate"),
    "two-processes-stream": Variant("lstm", {"truncated_bptt": 7}, processes=2, task="generate"),
    "two-processes": Variant("bilstm-stacked", {}, processes=2),
    "two-processes-accumulation": Variant("encoder", {"micro_batch_size": 4}, processes=2),
}
"""Every family, and the options that a resume depends on; a later family joins by one line."""


def write_recipe(directory: Path, variant: Variant) -> Path:
    """A recipe with dropout, several validations and checkpoints, that trains for some seconds."""
    training = {
        "num_train_epochs": 6,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "threads": 1,
        "eval_steps": 13,
        "save_steps": 5,
        "logging_steps": 3,
        **variant.training,
    }
    if variant.model in DECODERS:
        base = write_decoder(directory / "base", variant.model)
        model = {"family": "decoder", "model_name_or_path": str(base), "tuning": "lora", "lora": {"dropout": 0.1}}
    else:
        model = (WRITERS if variant.task == "generate" else MODELS)[variant.model]
    is_writing_rnn = variant.task == "generate" and model["family"] == "recurrent"
    write_rows = {"rate": write_ratings, "multi_label": write_topics}.get(variant.task, write_csv)
    text: dict[str, Any] = {"vocabulary_size": 300, "max_length": 32}
    if "adaptive" in variant.model:
        text["unit"] = "whitespace"
    if variant.sampling:
        layout = write_split_layout(directory / "tokenizer")
        text = {"tokenizer_name_or_path": str(layout), "subword_sampling_alpha": 0.2, "max_length": 32}
    recipe = parse_recipe(
        {
            "name": "run",
            "task": variant.task,
            "data": {"train_file": str(write_rows(directory / "reviews.csv", 400))},
            "text": text,
            "model": {
                **model,
                "dropout": 0.2,
                **({"weight_dropout": 0.2, "token_dropout": 0.1} if is_writing_rnn else {}),
            },
            "training": training,
            "evaluation": {"bootstrap_samples": 100},
        }
    )
    path = directory / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    return path


def command(variant: Variant, recipe: Path, output: Path) -> list[str]:
    verb = "pretrain" if variant.task == "masked_lm" else "train"
    arguments = [verb, str(recipe), "--resume", "--output_dir", str(output)]
    if variant.processes == 1:
        return [sys.executable, "-m", "finetune", *arguments]
    script = (
        Path(__file__).parent.parent.parent / "scripts" / ("pretrain.py" if verb == "pretrain" else "train_baseline.py")
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(variant.processes)]
    return [sys.executable, *launcher, str(script), *arguments[1:]]


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all below it: torchrun's workers have process groups of their own."""
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def outcome(run: Path) -> dict[str, Any]:
    """What two equal runs share: weights, log and scores, seconds aside."""
    log = [json.loads(line) for line in (run / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))["splits"]
    return {
        "weights": _sha256(run / "model" / "model.safetensors"),
        "predictions": _sha256(run / "predictions" / "test.parquet"),
        "log": [{key: value for key, value in record.items() if key != "seconds"} for record in log],
        "scores": scores,
        "samples": (run / "samples.jsonl").read_text(encoding="utf-8") if (run / "samples.jsonl").exists() else None,
        "adapter": _sha256(run / "adapter" / "adapter_model.safetensors"),
        "world_size": json.loads((run / "environment.json").read_text(encoding="utf-8"))["world_size"],
    }


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def wait_for(condition: Any, process: subprocess.Popen[str], timeout: float = 180.0) -> None:
    deadline = time.monotonic() + timeout
    while process.poll() is None and not condition() and time.monotonic() < deadline:
        time.sleep(0.005)


def kill_and_resume(variant: Variant, directory: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """Train once undisturbed and once under `kills` kills; returns both outcomes and where the kills fell."""
    chance = random.Random(seed)
    recipe = write_recipe(directory, variant)
    expected = undisturbed_outcome(variant, recipe, directory / "undisturbed")
    assert expected["world_size"] == variant.processes
    last_step = max(record["step"] for record in expected["log"])

    disturbed = directory / "disturbed"
    log, fell = disturbed / "run" / "train_log.jsonl", []
    steps = sorted(chance.randint(0, last_step) for _ in range(kills))
    for target in steps:
        process = start(command(variant, recipe, disturbed))
        wait_for(lambda target=target: _logged_step(log) >= target, process)
        time.sleep(chance.random() * 0.05)
        kill_tree(process.pid)
        process.communicate(timeout=60)
        fell.append((_logged_step(log), process.returncode))
    process = start(command(variant, recipe, disturbed))
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0, errors
    return {"expected": expected, "found": outcome(disturbed / "run"), "kills": fell}


def undisturbed_outcome(variant: Variant, recipe: Path, output: Path) -> dict[str, Any]:
    """What a run comes to that nothing happens to."""
    if variant.processes == 1:
        # Not in a process of its own: starting one takes longer than the training.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert finetune.cli.main(command(variant, recipe, output)[3:]) == 0
    else:
        process = start(command(variant, recipe, output))
        errors = process.communicate(timeout=600)[1]
        assert process.returncode == 0, errors
    return outcome(output / "run")


def _logged_step(log: Path) -> int:
    """The last step in the log, 0 before there is one."""
    if not log.exists():
        return 0
    for line in reversed(log.read_bytes().splitlines()):
        try:
            return int(json.loads(line)["step"])
        except ValueError:
            continue
    return 0


def main() -> int:
    """Run the loop and print one row per variant; exit code 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills per variant")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    options = parser.parse_args()
    failures = 0
    print(f"{'variant':28} {'kills':>5}  {'at steps':40} {'weights':>8} {'log':>6} {'scores':>7}", flush=True)
    for name in options.variant or VARIANTS:
        with tempfile.TemporaryDirectory() as directory:
            result = kill_and_resume(VARIANTS[name], Path(directory), options.kills, options.seed)
        expected, found = result["expected"], result["found"]
        equal = {key: "equal" if expected[key] == found[key] else "DIFFER" for key in ("weights", "log", "scores")}
        failures += "DIFFER" in equal.values()
        done = sum(code == -signal.SIGKILL for _, code in result["kills"])
        at = ",".join(str(step) for step, _ in result["kills"])
        print(
            f"{name:28} {done:5}  {at[:40]:40} {equal['weights']:>8} {equal['log']:>6} {equal['scores']:>7}", flush=True
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
