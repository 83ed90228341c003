"""Checkpoints: whole or not at all, believed only when intact, never the last good one removed."""

import errno
import functools
import json
import os
import shutil
import sys

import pytest
import torch
from line_kill import AtLine
from safetensors import SafetensorError
from torch import nn

from finetune.errors import UserError
from finetune.training import checkpoint as module
from finetune.training.checkpoint import (
    BEST_WEIGHTS,
    find_checkpoint,
    find_damage,
    list_checkpoints,
    load_best_weights,
    load_checkpoint,
    restore_best_weights,
    save_best_weights,
    save_checkpoint,
)

FILES = [
    "model.safetensors",
    "optimizer.safetensors",
    "generators.safetensors",
    "state.json",
    "manifest.json",
    BEST_WEIGHTS,
]


@pytest.fixture
def trained():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(3):
        model(torch.randn(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save(directory, trained, step, keep=9):
    generators = {"0.cpu": torch.get_rng_state()}
    return save_checkpoint(directory, step, *trained, generators, {"step": step, "loss": 0.1 + 0.2}, keep)


def test_what_is_loaded_is_what_was_saved(tmp_path, trained):
    save_best_weights(trained[0], tmp_path)
    random_state = torch.get_rng_state()
    path = save(tmp_path, trained, 3)
    assert find_damage(path) is None
    other = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(other.parameters(), fused=True)
    generators, state = load_checkpoint(path, other, optimizer)
    assert state == {"step": 3, "loss": 0.1 + 0.2}
    assert torch.equal(generators["0.cpu"], random_state)
    for (_, mine), (_, theirs) in zip(trained[0].named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for number, values in trained[1].state_dict()["state"].items():
        for name, value in values.items():
            assert torch.equal(optimizer.state_dict()["state"][number][name], value)


def test_nothing_in_a_checkpoint_can_run_code(tmp_path, trained):
    path = save(tmp_path, trained, 1)
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_newest_are_kept(tmp_path, trained, keep):
    for step in (1, 2, 3):
        save(tmp_path, trained, step, keep)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000003", "step-000002"][:keep]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_bit, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "optimizer.safetensors",
        "generators.safetensors",
        "state.json",
        "manifest.json",
        BEST_WEIGHTS,
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, trained, name, damage):
    save_best_weights(trained[0], tmp_path)
    good, damaged = save(tmp_path, trained, 1), save(tmp_path, trained, 2)
    damage(damaged / name)
    said = []
    assert find_checkpoint(tmp_path, said.append) == good
    assert len(said) == 1
    # A damaged manifest speaks of files that are whole; what counts is that it is not believed.
    assert said[0].startswith(f"{damaged}: " if name == "manifest.json" else f"{damaged}: {name}")
    assert said[0].endswith("the checkpoint before it is used")


def test_a_manifest_that_leaves_a_file_out_or_points_elsewhere_is_damage(tmp_path, trained):
    path = save(tmp_path, trained, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    entry = manifest.pop("model.safetensors")
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert find_damage(path) == "model.safetensors is missing"
    (path / "manifest.json").write_text(json.dumps({**manifest, "../../model.safetensors": entry}))
    assert find_damage(path) == "../../model.safetensors is missing"


def test_an_unfinished_save_is_no_checkpoint_and_is_cleared_away(tmp_path, trained):
    good = save(tmp_path, trained, 1)
    shutil.copytree(good, tmp_path / ".unfinished-step-000002")
    assert find_checkpoint(tmp_path, print) == good
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def die_at_line(number, action):
    """Run `action` in a child that ends, as by SIGKILL, before the given line of the module; its exit code, 0 or 9."""
    child = os.fork()
    if child == 0:
        sys.settrace(AtLine(module.__file__, number, functools.partial(os._exit, 9)))
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("kind", ["checkpoint", "pruning", "best", "restore", "clearing"])
def test_a_kill_before_any_line_of_saving_leaves_a_good_checkpoint(tmp_path, trained, kind):
    later = nn.Linear(4, 3)
    actions = {
        "checkpoint": lambda place: save(place, trained, 2),
        "pruning": lambda place: save(place, trained, 2, keep=1),
        "best": lambda place: save_best_weights(later, place),
        "restore": lambda place: restore_best_weights(place / "step-000001"),
        "clearing": lambda place: find_checkpoint(place, print),
    }
    for number in range(1, 1000):
        place = tmp_path / str(number)
        save_best_weights(trained[0], place)
        save(place, trained, 1)
        if kind == "clearing":
            (place / ".unfinished-step-000002").mkdir()
            (place / ".unfinished-best.safetensors").write_bytes(b"half")
        code = die_at_line(number, functools.partial(actions[kind], place))
        said = []
        found = find_checkpoint(place, said.append)
        assert found in (place / "step-000001", place / "step-000002"), number
        assert not said, number
        assert not list(place.glob(".unfinished*")), number
        load_best_weights(nn.Linear(4, 3), place)
        shutil.rmtree(place)
        if code == 0:
            break
    assert number > 6


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "no space left on the disk"),
        (OSError(errno.EACCES, "Permission denied"), "cannot write a checkpoint"),
    ],
)
def test_a_full_disk_is_one_line_and_the_last_good_one_stays(tmp_path, trained, monkeypatch, error, message):
    good = save(tmp_path, trained, 1)

    def fail(*_):
        raise error

    monkeypatch.setattr(module, "save_file", fail)
    with pytest.raises(UserError, match=message) as caught:
        save(tmp_path, trained, 2)
    assert "the last good checkpoint (step-000001) is intact" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [good.name]
    assert find_damage(good) is None
