"""Train 50 steps without dropout and print a JSON line per step; run by test_split.py, by itself or under torchrun.

python split_child.py DIRECTORY MODEL DTYPES MICRO_BATCH_SIZE WORLD_SIZE

The result of each of DTYPES, parted by commas, is in DIRECTORY/DTYPE.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from accelerate import Accelerator
from training_setup import prepare

from finetune.evaluation import predict_outputs
from finetune.training import environment
from finetune.training.train import _fit


def run(directory: Path, model: str, dtype: str, micro_batch_size: int, world_size: int) -> dict[str, object]:
    """The losses and gradient norms of 50 steps, and the probabilities of the validation rows."""
    directory.mkdir(parents=True, exist_ok=True)
    # 125 rows leave 90 to train on: 11 whole steps of 8 and a ragged one of 2 in each epoch.
    setup = prepare(directory, model, rows=125, dropout=0.0, max_steps=50, num_train_epochs=9,
                    micro_batch_size=micro_batch_size, eval_steps=50)  # fmt: skip
    accelerator = environment.start_accelerator(setup.recipe, setup.run.tracking_directory)
    assert accelerator.num_processes == world_size
    network = setup.fresh_model().to(getattr(torch, dtype))
    prepared, _ = _fit(network, setup.recipe, setup.encoded, setup.tokenizer, setup.run, accelerator)
    rows = setup.encoded["validation"]
    probabilities = predict_outputs(prepared, rows, setup.tokenizer, accelerator, batch_size=3)
    records = [r for r in setup.run.log() if "loss" in r]
    return {
        "loss": [record["loss"] for record in records],
        "grad_norm": [record["grad_norm"] for record in records],
        "targets": [record["targets"] for record in records],
        "probabilities": probabilities.tolist(),
    }


if __name__ == "__main__":
    place, model, dtypes, micro_batch_size, world_size = sys.argv[1:]
    for dtype in dtypes.split(","):
        result = run(Path(place) / dtype, model, dtype, int(micro_batch_size), int(world_size))
        if os.environ["RANK"] == "0":
            (Path(place) / dtype / "result.json").write_text(json.dumps(result), encoding="utf-8")
    environment.end(Accelerator())
