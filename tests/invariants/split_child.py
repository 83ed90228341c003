"""Train 50 steps without dropout and print a JSON line per step; run by test_split.py, by itself or under torchrun.

python split_child.py DIRECTORY MODEL DTYPE MICRO_BATCH_SIZE WORLD_SIZE
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from training_setup import prepare

from finetune.evaluation import predict_outputs
from finetune.training import environment
from finetune.training.train import _fit


def run(directory: Path, model: str, dtype: str, micro_batch_size: int, world_size: int) -> dict[str, object]:
    """The losses and gradient norms of 50 steps, and the probabilities of the validation rows."""
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
    del prepared
    environment.end(accelerator)
    return {
        "loss": [record["loss"] for record in records],
        "grad_norm": [record["grad_norm"] for record in records],
        "targets": [record["targets"] for record in records],
        "probabilities": probabilities.tolist(),
        "rank": accelerator.process_index,
    }


if __name__ == "__main__":
    arguments = sys.argv[1:]
    result = run(Path(arguments[0]), arguments[1], arguments[2], int(arguments[3]), int(arguments[4]))
    if result["rank"] == 0:
        (Path(arguments[0]) / "result.json").write_text(json.dumps(result), encoding="utf-8")
