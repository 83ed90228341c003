"""Put a pretrained run into the package as an embedded model, small enough to ship.

    python scripts/embed_model.py mini-bert-ko runs/mini-bert-ko runs/mini-bert-ko-continued

NAME first, then the runs: each went on from the weights of the one before it, and the last one's are shipped. They are
rounded to half precision on the disk; config.json says float32, so that nobody trains in half precision unawares. The
recipe, the log and the held-out scores of every run go along, without a path of the machine it ran on, and the first
ten texts that a model which writes drew at the end.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from finetune.errors import UserError
from finetune.recipe import EMBEDDED_PREFIX, load_recipe
from finetune.run import RunDirectory, open_run

EMBEDDED = Path(__file__).parent.parent / "finetune" / "models" / "embedded"
MOST_BYTES = 14_000_000
"""As much as a package that people install for its code may carry."""
_FILE_FIELDS = ("train_file", "validation_file", "test_file")
_SAMPLES = 10


def main(name: str, *run_paths: str) -> None:
    """Write finetune/models/embedded/NAME of the last of the runs; curves of what it replaces are left out.

    Raises:
        UserError: a run is not finished, or the weights are too large.
    """
    if not run_paths:
        raise UserError(f"which runs is {name} made of? python scripts/embed_model.py {name} RUN [RUN ...]")
    runs = [open_run(path) for path in run_paths]
    unfinished_run = next((run for run in runs if not run.is_finished()), None)
    if unfinished_run is not None:
        raise UserError(f"{unfinished_run.path}: the run is not finished; go on with --resume first")
    run, run_path = runs[-1], run_paths[-1]
    target = EMBEDDED / name
    unfinished = EMBEDDED / f".{name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "pretraining").mkdir(parents=True)
    for file in run.model_directory.iterdir():
        if file.name != "model.safetensors":
            shutil.copyfile(file, unfinished / file.name)
    weights = load_file(run.model_directory / "model.safetensors")
    rounded = {name: tensor.to(torch.float16) for name, tensor in weights.items()}
    if not all(torch.isfinite(tensor).all() for tensor in rounded.values()):
        raise UserError(f"{run_path}: a weight is too large for half precision")
    save_file(rounded, unfinished / "model.safetensors", metadata={"format": "pt"})
    size = (unfinished / "model.safetensors").stat().st_size
    if size > MOST_BYTES:
        raise UserError(f"{run_path}: {size:,} bytes of weights; at most {MOST_BYTES:,} are shipped")
    config = json.loads((unfinished / "config.json").read_text(encoding="utf-8"))
    if config["dtype"] != "float32":
        raise UserError(f"{run_path}: config.json says {config['dtype']}, not float32")
    for part in runs:
        _write_account(part, name, unfinished / "pretraining" / part.name)
    if (target / "pretraining" / "experiments.jsonl").exists():
        shutil.copyfile(target / "pretraining" / "experiments.jsonl", unfinished / "pretraining" / "experiments.jsonl")
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    print(f"{size:,} bytes of weights -> {target}")


def _write_account(run: RunDirectory, name: str, directory: Path) -> None:
    """The recipe, the log, the data's and the environment's account, and the held-out scores of one run."""
    directory.mkdir()
    recipe = load_recipe(str(run.recipe_file)).model_dump(mode="json")
    data = recipe["data"]
    for field in _FILE_FIELDS:
        data[field] = Path(data[field]).name if data[field] else None
    data["more_train_files"] = [Path(file).name for file in data["more_train_files"]]
    tokenizer = recipe["text"]["tokenizer_name_or_path"]
    if tokenizer is not None and not tokenizer.startswith(EMBEDDED_PREFIX):
        recipe["text"]["tokenizer_name_or_path"] = f"{EMBEDDED_PREFIX}{name}"
    if recipe["model"]["model_name_or_path"] is not None:
        earlier = Path(recipe["model"]["model_name_or_path"])
        recipe["model"]["model_name_or_path"] = f"runs/{earlier.parent.name}/{earlier.name}"
    recipe["output_dir"] = "runs"
    (directory / "recipe.yaml").write_text(
        yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8"
    )
    environment: dict[str, Any] = run.environment()
    del environment["command"]  # it names files of the machine; the recipe says all that it did
    shutil.copyfile(run.log_file, directory / "train_log.jsonl")
    if samples := run.samples()[:_SAMPLES]:
        # Not what stands in the data, which is not ours to ship.
        lines = [json.dumps({key: of[key] for key in ("text", "stopped")}, ensure_ascii=False) for of in samples]
        (directory / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, content in (("environment", environment), ("scores", run.scores()), ("data", run.data())):
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        (directory / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"embed_model: {error}")
