"""What a run costs: fields that hold for every family, and a measurement that leaves no trace."""

import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from reviews import small_recipe, write_ratings, write_topics
from training_setup import prepare

from finetune.data import load_splits
from finetune.data.splits import column
from finetune.predict import Classifier
from finetune.run import create_run
from finetune.training import cost, train

BYTES_OF_PYTHON_AND_TORCH = 100_000_000


def check_plausible(found):
    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] < 10_000
    assert 0 < latency["count"] <= cost.MOST_TEXTS
    assert latency["threads"] == torch.get_num_threads() == 1
    assert latency["device"] == "cpu"
    assert found["peak_memory_bytes"] >= found["peak_memory_before_bytes"] > BYTES_OF_PYTHON_AND_TORCH
    assert found["peak_gpu_memory_bytes"] is None


@pytest.mark.parametrize("model", ["lstm", "encoder"])
def test_a_model_says_what_it_costs_and_asks_the_validation_texts_alone(model, tmp_path, monkeypatch):
    asked = []
    classify_one = Classifier.classify_one

    def listen(self, text, pair=None):
        asked.append(text)
        return classify_one(self, text, pair)

    monkeypatch.setattr(Classifier, "classify_one", listen)
    recipe = small_recipe(tmp_path, model, training={"num_train_epochs": 1})
    run = train(recipe)
    found = run.scores()["cost"]
    check_plausible(found)
    files = [path for path in (run.path / "model").rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert found["disk_bytes"] == sum(path.stat().st_size for path in files) > found["model_bytes"] > 0
    validation = column(load_splits(recipe.data).validation, "text")
    assert len(asked) == cost.WARM_UPS + found["latency_ms"]["count"]
    assert set(asked) == set(validation)


@pytest.mark.parametrize("family", ["tfidf", "majority"])
def test_a_floor_says_it_too_and_keeps_nothing_on_disk(family, tmp_path):
    found = train(small_recipe(tmp_path, {"family": family}, training={"threads": 1})).scores()["cost"]
    check_plausible(found)
    assert found["disk_bytes"] is None


@pytest.mark.parametrize(("task", "write"), [("rate", write_ratings), ("multi_label", write_topics)])
@pytest.mark.parametrize("model", ["lstm", {"family": "tfidf"}])
def test_other_tasks_over_texts_with_labels_are_timed_as_well(task, write, model, tmp_path):
    data = {"train_file": str(write(tmp_path / f"{task}.csv", 100))}
    if task == "multi_label":
        data["label_separator"] = "|"
    recipe = small_recipe(tmp_path, model, task=task, data=data, training={"num_train_epochs": 1})
    check_plausible(train(recipe).scores()["cost"])


def test_it_leaves_the_mode_of_the_model_and_every_generator_as_they_were(tmp_path):
    setup = prepare(tmp_path, "lstm", rows=60, dropout=0.5)
    model = setup.fresh_model().train()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    weights = {name: values.clone() for name, values in model.state_dict().items()}
    found = [cost.model_latency(Classifier(model, setup.tokenizer, 32), setup.splits.validation, "cpu")]
    found.append(cost.floor_latency(Constant(), setup.splits.validation))
    assert model.training
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert all(torch.equal(values, weights[name]) for name, values in model.state_dict().items())
    assert [entry["count"] for entry in found] == [len(setup.splits.validation)] * 2


class Constant:
    def outputs(self, texts):
        assert len(texts) == 1
        return np.array([[0.5, 0.5]])


def test_one_text_is_answered_as_a_row_of_a_data_set_is(tmp_path):
    setup = prepare(tmp_path, "encoder", rows=60)
    classifier = Classifier(setup.fresh_model().eval(), setup.tokenizer, 32)
    for text, pair in (("정말 재미있다", None), ("a" * 500, None), ("", None), ("정말 재미있다", "너무 지루하다")):
        row = {"text": [text]} if pair is None else {"text": [text], "text_pair": [pair]}
        alone = classifier.classify_one(text, pair)
        assert np.array_equal(alone, classifier.classify_rows(Dataset.from_dict(row)))
        assert pair is not None or np.array_equal(alone, classifier.classify([text]))


def test_time_that_is_up_leaves_one_text_counted(monkeypatch):
    monkeypatch.setattr(cost, "MOST_SECONDS", 0.0)
    asked = []
    found = cost.measure_latency(lambda *question: asked.append(question), [("a", None)] * 50, 3, "a GPU")
    assert len(asked) == 2  # one to warm up
    assert found == {"p50": found["p95"], "p95": found["p95"], "count": 1, "threads": 3, "device": "a GPU"}


def test_percentiles_are_of_milliseconds(monkeypatch):
    clock = iter([0.0, *([0.0] * cost.WARM_UPS), *(time for i in range(100) for time in (0.0, (i + 1) / 1e6))])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    found = cost.measure_latency(lambda text, pair: None, [("a", None)] * 100, 1, "cpu")
    # 0.001 to 0.1 ms: numpy's percentiles lie between the ranks.
    assert (found["p50"], found["p95"], found["count"]) == (pytest.approx(0.0505), pytest.approx(0.09505), 100)


def test_questions_are_spread_over_all_rows():
    rows = Dataset.from_dict({"text": [str(i) for i in range(1000)], "text_pair": [f"+{i}" for i in range(1000)]})
    found = cost.some_questions(rows)
    assert len(found) == len(set(found)) == cost.MOST_TEXTS
    assert (found[0], found[-1]) == (("0", "+0"), ("999", "+999"))
    assert cost.some_questions(rows.select_columns(["text"]).select(range(2))) == [("0", None), ("1", None)]


@pytest.mark.skipif(sys.platform != "linux", reason="held against the other count of Linux")
def test_the_peak_of_memory_is_bytes_and_stays_when_memory_is_freed():
    import resource  # not on Windows

    held = np.ones(25_000_000)
    peak = cost.peak_memory()
    assert peak > held.nbytes
    del held
    for now in (cost.peak_memory(), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss):
        assert now > 0.98 * peak  # the kernel rounds


def test_a_run_after_a_larger_one_did_not_raise_the_peak(tmp_path, monkeypatch):
    run, device = create_run(tmp_path / "run"), torch.device("cpu")
    peaks = iter([700, 600, 900])
    monkeypatch.setattr(cost, "peak_memory", lambda: next(peaks))
    before = cost.begin_memory(device)
    for expected in (700, 900):
        found = cost.describe_resources(run, device, before)
        assert (found["peak_memory_bytes"], found["peak_memory_before_bytes"]) == (expected, 700)
    monkeypatch.setattr(cost, "peak_memory", lambda: None)
    assert cost.describe_resources(run, device, None)["peak_memory_bytes"] is None
