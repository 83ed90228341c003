"""Put a pretrained run into the package as an embedded model, small enough to ship.

    python scripts/embed_model.py runs/mini-bert-ko

The weights are rounded to half precision on the disk; config.json says float32, so that nobody trains in half precision
unawares. The recipe, the log and the held-out scores of the run go along, without a path of the machine it ran on.
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
MOST_BYTES = 12_000_000
"""As much as a package that people install for its code may carry."""
_FILE_FIELDS = ("train_file", "validation_file", "test_file")


def main(run_path: str) -> None:
    """Write finetune/models/embedded/NAME of the run NAME.

    Raises:
        UserError: the run is not finished, or its weights are too large.
    """
    run = open_run(run_path)
    if not run.is_finished():
        raise UserError(f"{run_path}: the run is not finished; go on with --resume first")
    target = EMBEDDED / run.name
    unfinished = EMBEDDED / f".{run.name}"
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
    _write_account(run, unfinished / "pretraining")
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    print(f"{size:,} bytes of weights -> {target}")


def _write_account(run: RunDirectory, directory: Path) -> None:
    """The recipe, the log, the data's and the environment's account, and the held-out scores."""
    recipe = load_recipe(str(run.recipe_file)).model_dump(mode="json")
    data = recipe["data"]
    for field in _FILE_FIELDS:
        data[field] = Path(data[field]).name if data[field] else None
    data["more_train_files"] = [Path(file).name for file in data["more_train_files"]]
    if recipe["text"]["tokenizer_name_or_path"] is not None:
        recipe["text"]["tokenizer_name_or_path"] = f"{EMBEDDED_PREFIX}{run.name}"
    if recipe["model"]["model_name_or_path"] is not None:
        recipe["model"]["model_name_or_path"] = Path(recipe["model"]["model_name_or_path"]).name
    recipe["output_dir"] = "runs"
    (directory / "recipe.yaml").write_text(
        yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8"
    )
    environment: dict[str, Any] = run.environment()
    del environment["command"]  # it names files of the machine; the recipe says all that it did
    shutil.copyfile(run.log_file, directory / "train_log.jsonl")
    for name, content in (("environment", environment), ("scores", run.scores()), ("data", run.data())):
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        (directory / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except UserError as error:
        sys.exit(f"embed_model: {error}")
