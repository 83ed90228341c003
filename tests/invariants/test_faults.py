"""A full disk, damaged checkpoints, signals during a save, a killed peer: nothing is lost. The table: `faults.py`."""

import faults
import pytest

EXPECTED = {
    "disk-full": (2, "no space left on the disk"),
    "truncated-checkpoint": (0, "the checkpoint before it is used"),
    "bit-flipped-checkpoint": (0, "the checkpoint before it is used"),
    "sigterm-during-save": (143, "To go on: finetune train"),
    "sigkill-during-save": (-9, ""),
    "killed-peer": (1, ""),
}


# Left to `python tests/invariants/faults.py`, for CI's time: tests/training/test_checkpoint.py has these damages, and
# stops a save at each of its lines.
BY_HAND = ("bit-flipped-checkpoint", "truncated-checkpoint", "sigkill-during-save")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in faults.FAULTS if name not in BY_HAND])
def test_after_a_fault_nothing_is_lost(tmp_path, name):
    result = faults.run(name, tmp_path)
    if result is None:
        pytest.skip("disk-full: this machine does not let a test mount a file system of its own")
    code, words = EXPECTED[name]
    assert result["exit_code"] == code
    assert words in result["line"]
    assert result["found"] == result["expected"]
