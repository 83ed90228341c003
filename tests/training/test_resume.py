"""Stopping and going on, in process: signals, refusals, odd numbers, and memory that runs out."""

import json
import os
import signal
import threading
import time

import pytest
import torch
from crashes import Crash, crash_at
from filelock import FileLock
from kill_loop import outcome
from reviews import write_csv

from finetune import tasks
from finetune.cli import main
from finetune.training import loop

RECIPE = """
name: mine
data: {train_file: reviews.csv}
text: {vocabulary_size: 300, max_length: 32}
model: {family: recurrent, embedding_size: 16, hidden_size: 16, dropout: 0.3}
training: {num_train_epochs: 4, batch_size: 16, learning_rate: 1e-2, threads: 1, logging_steps: 2, save_steps: 3}
evaluation: {bootstrap_samples: 100}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "reviews.csv", 200)
    (tmp_path / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def fails(capsys, *arguments):
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("step", [2, 8, 14, 35])
def test_a_crashed_run_goes_on_to_the_same_end(folder, monkeypatch, step):
    assert main(["train", "mine.yaml", "--name", "undisturbed"]) == 0
    with monkeypatch.context() as patch:
        crash_at(patch, step)
        with pytest.raises(Crash):
            main(["train", "mine.yaml"])
    assert main(["train", "mine.yaml", "--resume"]) == 0
    assert outcome(folder / "runs" / "mine") == outcome(folder / "runs" / "undisturbed")
    environment = json.loads((folder / "runs" / "mine" / "environment.json").read_text())
    assert len(environment["resumed"]) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "lr_scheduler_type": "one_cycle", "momentum": "0.8"},
        {"optimizer": "adafactor", "gradual_unfreezing": "true"},
        {"layerwise_lr_decay": "0.7", "lr_scheduler_type": "inverse_sqrt"},
        {"mixed_precision": "bf16", "micro_batch_size": "4"},
    ],
)
def test_every_optimizer_and_schedule_goes_on_too(folder, monkeypatch, options):
    command = [
        "train",
        "mine.yaml",
        *(word for name, value in options.items() for word in (f"--training.{name}", value)),
    ]
    assert main([*command, "--name", "undisturbed"]) == 0
    with monkeypatch.context() as patch:
        crash_at(patch, 14)
        with pytest.raises(Crash):
            main(command)
    assert main([*command, "--resume"]) == 0
    assert outcome(folder / "runs" / "mine") == outcome(folder / "runs" / "undisturbed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_with_a_hint(folder, capsys, monkeypatch, number, code):
    assert main(["train", "mine.yaml", "--name", "undisturbed"]) == 0
    original = loop._training_record

    def send(job, state, *rest):
        if state.step == 10:
            os.kill(os.getpid(), number)
        return original(job, state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_training_record", send)
        capsys.readouterr()
        assert main(["train", "mine.yaml"]) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "finetune: stopped at step 11, which is saved. To go on: finetune train mine.yaml --resume"
    assert (folder / "runs" / "mine" / "checkpoints" / "step-000011").is_dir()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert main(["train", "mine.yaml", "--resume"]) == 0
    assert outcome(folder / "runs" / "mine") == outcome(folder / "runs" / "undisturbed")


def test_a_signal_during_a_save_waits_for_it(folder, monkeypatch):
    original, saves = loop.save_checkpoint, []

    def slow(*arguments, **options):
        saves.append(arguments[1])
        if len(saves) != 2:
            return original(*arguments, **options)
        sender = threading.Thread(target=lambda: (time.sleep(0.05), os.kill(os.getpid(), signal.SIGTERM)))
        sender.start()
        time.sleep(0.2)
        path = original(*arguments, **options)
        sender.join()
        return path

    monkeypatch.setattr(loop, "save_checkpoint", slow)
    assert main(["train", "mine.yaml"]) == 143
    assert saves == [3, 6, 7]  # the save at step 6 was finished, then one more step, saved as well
    assert main(["train", "mine.yaml", "--resume"]) == 0


def test_resume_without_a_run_begins_and_of_a_finished_one_does_nothing(folder, capsys):
    assert main(["train", "mine.yaml", "--resume"]) == 0
    before = outcome(folder / "runs" / "mine")
    capsys.readouterr()
    assert main(["train", "mine.yaml", "--resume"]) == 0
    assert "is finished already" in capsys.readouterr().err
    assert outcome(folder / "runs" / "mine") == before
    assert before["scores"]["test"]["times_scored"] == 1


def test_a_changed_recipe_or_changed_data_is_refused_by_name(folder, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        crash_at(patch, 14)
        with pytest.raises(Crash):
            main(["train", "mine.yaml"])
    flags = ["--training.learning_rate", "1e-3", "--seed", "7"]
    message = fails(capsys, "train", "mine.yaml", "--resume", *flags)
    assert "training.learning_rate is 0.001, was 0.01" in message
    assert "seed is 7, was 42" in message
    write_csv(folder / "reviews.csv", 200, seed=1)
    assert "the train split has changed" in fails(capsys, "train", "mine.yaml", "--resume")
    assert "exclude each other" in fails(capsys, "train", "mine.yaml", "--resume", "--overwrite")


def test_a_second_writer_is_refused(folder, capsys):
    (folder / "runs").mkdir()
    with FileLock(folder / "runs" / ".mine.lock"):
        for flags in ([], ["--resume"], ["--overwrite"]):
            assert "another process is writing this run" in fails(capsys, "train", "mine.yaml", *flags)
    assert main(["train", "mine.yaml"]) == 0
    assert not (folder / "runs" / ".mine.lock").exists()


def poison(monkeypatch, step):
    """Make the loss of one step infinite."""
    calls = {"number": 0}
    original = tasks.loss_and_state

    def loss_and_state(model, batch, state, criterion):
        calls["number"] += 1
        loss, after = original(model, batch, state, criterion)
        return loss * (float("inf") if calls["number"] == step else 1.0), after

    monkeypatch.setattr(tasks, "loss_and_state", loss_and_state)


def test_an_infinite_loss_stops_and_names_step_and_rows(folder, capsys, monkeypatch):
    poison(monkeypatch, 5)
    message = fails(capsys, "train", "mine.yaml")
    assert "loss inf at step 5 (rows train-" in message
    assert "training.on_nonfinite skip" in message


def test_an_infinite_loss_is_skipped_by_recipe_and_logged(folder, monkeypatch):
    poison(monkeypatch, 5)
    assert main(["train", "mine.yaml", "--training.on_nonfinite", "skip"]) == 0
    log = [json.loads(line) for line in (folder / "runs" / "mine" / "train_log.jsonl").read_text().splitlines()]
    skipped = [record for record in log if "skipped" in record]
    assert [(record["step"], record["skipped"], len(record["rows"])) for record in skipped] == [(5, "loss inf", 16)]
    assert all(torch.isfinite(torch.tensor(record["loss"])) for record in log if "loss" in record)


def test_where_memory_runs_out_the_micro_batch_is_halved_and_the_training_stays_the_same(folder, monkeypatch):
    flags = ["--model.dropout", "0"]
    assert main(["train", "mine.yaml", "--name", "plenty", *flags]) == 0
    original = tasks.loss_and_state

    def loss_and_state(model, batch, state, criterion):
        if len(batch["labels"]) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return original(model, batch, state, criterion)

    monkeypatch.setattr(tasks, "loss_and_state", loss_and_state)
    assert main(["train", "mine.yaml", "--name", "scarce", *flags]) == 0
    logs = {}
    for name in ("plenty", "scarce"):
        lines = (folder / "runs" / name / "train_log.jsonl").read_text().splitlines()
        logs[name] = [json.loads(line) for line in lines]
    said = [record for record in logs["scarce"] if "micro_batch_size" in record]
    assert [record["micro_batch_size"] for record in said] == [8, 4]
    pairs = [[r for r in logs[name] if "loss" in r] for name in ("plenty", "scarce")]
    for plenty, scarce in zip(*pairs, strict=True):
        assert scarce["loss"] == pytest.approx(plenty["loss"], rel=1e-3)
        assert scarce["targets"] == plenty["targets"]
