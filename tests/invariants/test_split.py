"""However a step is split (8 rows at once, 4 times 2, two processes of 4), it is the same step."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from split_child import run

CHILD = str(Path(__file__).parent / "split_child.py")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two processes of four rows each come to, by model and precision; they are started once for both."""

    @cache
    def results(model):
        directory = tmp_path_factory.mktemp(model)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
        words = [*launcher, CHILD, str(directory), model, "float64,float32", "4", "2"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return directory

    return lambda model, dtype: json.loads((results(model) / dtype / "result.json").read_text(encoding="utf-8"))


def outcomes(tmp_path, two_processes, model, dtype):
    yield run(tmp_path / "8x1", model, dtype, 8, 1)
    yield run(tmp_path / "2x4", model, dtype, 2, 1)
    yield two_processes(model, dtype)


@pytest.mark.parametrize("model", ["bilstm-stacked", pytest.param("encoder", marks=pytest.mark.slow)])
def test_in_float64_every_step_is_equal_to_1e_9(tmp_path, two_processes, model):
    whole, *others = outcomes(tmp_path, two_processes, model, "float64")
    assert len(whole["loss"]) == 50
    assert min(whole["targets"]) < max(whole["targets"]) == 8  # ragged steps are among them
    for other in others:
        assert other["targets"] == whole["targets"]
        for name in ("loss", "grad_norm"):
            assert np.abs(np.array(other[name]) / np.array(whole[name]) - 1).max() < 1e-9, name
        assert np.abs(np.array(other["probabilities"]) - np.array(whole["probabilities"])).max() < 1e-9


def test_in_float32_the_first_step_agrees_and_the_residuals_lean_to_no_side(tmp_path, two_processes):
    whole, *others = outcomes(tmp_path, two_processes, "bilstm-stacked", "float32")
    for other in others:
        residuals = np.array(other["loss"]) - np.array(whole["loss"])
        assert abs(residuals[0]) < 1e-5
        assert np.abs(residuals).max() < 1e-3
        # A one-sided shift is a bug that a tolerance would hide.
        standard_error = residuals.std(ddof=1) / np.sqrt(len(residuals))
        assert abs(residuals.mean()) <= 4 * standard_error + 1e-9
