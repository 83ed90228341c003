"""However it is launched, one recipe with one seed gives the same weights, bit for bit."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from reviews import write_csv

from finetune.cli import main

ROOT = Path(__file__).parent.parent.parent
SCRIPT = str(ROOT / "scripts" / "train_baseline.py")
RECIPE = """
name: launched
data: {train_file: reviews.csv}
text: {vocabulary_size: 300, max_length: 32}
model: {family: recurrent, bidirectional: true}
training: {num_train_epochs: 2, batch_size: 16, learning_rate: 5e-3, threads: 2}
evaluation: {bootstrap_samples: 100}
"""
LAUNCHERS = {
    "python": [SCRIPT],
    "accelerate launch": ["-m", "accelerate.commands.launch", "--num_processes", "1", SCRIPT],
    "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node", "1", SCRIPT],
}


def digest(run):
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_every_launcher_gives_the_same_weights(tmp_path, monkeypatch):
    write_csv(tmp_path / "reviews.csv", 300)
    (tmp_path / "launched.yaml").write_text(RECIPE, encoding="utf-8")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache")}
    environment.pop("OMP_NUM_THREADS", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "launched.yaml", "--name", "finetune"]) == 0
    digests = {"finetune": digest(tmp_path / "runs" / "finetune")}
    for launcher, arguments in LAUNCHERS.items():
        name = launcher.replace(" ", "-")
        done = subprocess.run(
            [sys.executable, *arguments, "launched.yaml", "--name", name],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        run = tmp_path / "runs" / name
        assert json.loads((run / "environment.json").read_text())["world_size"] == 1
        digests[launcher] = digest(run)
    assert len(digests) == 4
    assert len(set(digests.values())) == 1, digests
