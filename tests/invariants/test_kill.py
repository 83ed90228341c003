"""A short kill loop for every family and option: `kill -9`, `--resume`, and nothing has changed."""

import kill_loop
import pytest

SHORT = ("encoder",)
# Left to `python tests/invariants/kill_loop.py`, for CI's time: they differ from what is here by the cell or the
# number of processes alone, or are two options each of which is here with the other left out, or are resumed in process
# by tests/training/test_resume.py. Two processes are killed and resumed by test_faults.py.
BY_HAND = (
    *("rnn", "lstm", "gru", "bilstm-stacked", "bigru-max", "rate", "multi-label", "two-processes-multi-label"),
    *("workers", "sgd", "adafactor", "layerwise", "sampling", "decoder", "two-processes"),
    *("two-processes-masked", "two-processes-lora", "two-processes-adaptive", "two-processes-accumulation"),
    *("two-processes-stream", "accumulation", "bf16"),
)


@pytest.mark.parametrize("name", [name for name in kill_loop.VARIANTS if name in SHORT])
def test_a_killed_and_resumed_run_equals_the_undisturbed_one(tmp_path, name):
    check(tmp_path, name, kills=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in kill_loop.VARIANTS if name not in (*SHORT, *BY_HAND)])
def test_every_other_variant_too(tmp_path, name):
    check(tmp_path, name, kills=1)


def check(directory, name, kills):
    result = kill_loop.kill_and_resume(kill_loop.VARIANTS[name], directory, kills)
    assert any(code == -9 for _, code in result["kills"]), result["kills"]
    assert result["found"] == result["expected"]
