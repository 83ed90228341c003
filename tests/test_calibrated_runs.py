"""Runs that fit a temperature and a neutral band on validation: in the weights, in the scores, in every answer."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from peft import PeftModel
from reviews import review_rows, small_recipe
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, pipeline

from finetune.cli import main
from finetune.errors import UserError
from finetune.evaluation.calibration import apply_temperature, fit_temperature
from finetune.predict import load_classifier
from finetune.training import train

TEXTS = [text for text, _ in review_rows(40, seed=5)]
CALIBRATED = {"calibration": "temperature", "neutral_accuracy": 0.97, "neutral_label": "so so"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(a run as it is, the same one calibrated): an LSTM that had enough of its few rows."""
    found = []
    for name, evaluation in (("plain", {}), ("calibrated", CALIBRATED)):
        directory = tmp_path_factory.mktemp(name)
        found.append(train(small_recipe(directory, "lstm", rows=300, evaluation=evaluation)))
    return found


def validation_of(run):
    table = pq.read_table(run.predictions_file("validation")).sort_by("id")
    labels = run.scores()["splits"]["validation"]["labels"]
    references = np.array([labels.index(name) for name in table["reference"].to_pylist()])
    return np.array(table["scores"].to_pylist()), references


def test_the_temperature_is_in_the_last_layer_alone(runs):
    plain, calibrated = runs
    before, after = (load_file(run.model_directory / "model.safetensors") for run in runs)
    temperature = calibrated.scores()["calibration"]["temperature"]
    assert temperature == pytest.approx(fit_temperature(*validation_of(plain)), rel=1e-6)
    for name, value in before.items():
        expected = value / temperature if name.startswith("classifier.") else value
        assert np.allclose(after[name], expected, rtol=1e-6), name
    assert abs(temperature - 1) > 0.05


def test_answers_stay_and_are_as_sure_as_the_temperature_says(runs):
    plain, calibrated = runs
    before, after = (load_classifier(str(run.path)).classify(TEXTS) for run in runs)
    temperature = calibrated.scores()["calibration"]["temperature"]
    assert np.allclose(after, apply_temperature(before, temperature), atol=1e-6)
    served = pipeline("text-classification", model=str(calibrated.model_directory), top_k=None)
    of_pipeline = {entry["label"]: entry["score"] for entry in served([TEXTS[0]])[0]}
    labels = load_classifier(str(calibrated.path)).labels
    assert [of_pipeline[label] for label in labels] == pytest.approx(after[0].tolist(), abs=1e-5)
    told = calibrated.scores()["calibration"]
    assert told["after"]["loss"] < told["before"]["loss"]
    found = calibrated.scores()["splits"]["validation"]["metrics"]
    assert found["loss"]["value"] == pytest.approx(told["after"]["loss"], rel=1e-4)
    assert found["accuracy"] == plain.scores()["splits"]["validation"]["metrics"]["accuracy"]
    assert found["ece"]["value"] == pytest.approx(told["after"]["ece"], abs=1e-3)
    assert "calibration" not in plain.scores()


def test_in_the_band_neither_label_is_given(runs, tmp_path, capsys):
    _, calibrated = runs
    config = json.loads((calibrated.model_directory / "config.json").read_text(encoding="utf-8"))
    band = config["neutral_band"]
    assert band == calibrated.scores()["calibration"]["neutral_band"]
    assert band["low"] < 0.5 <= band["high"]
    classifier = load_classifier(str(calibrated.path))
    middle = (band["low"] + band["high"]) / 2
    rows = np.array([[1 - p, p] for p in (0.001, band["low"], middle, band["high"], 0.999)])
    assert classifier.answers(rows) == ["negative", "negative", "so so", "positive", "positive"]
    capsys.readouterr()
    assert main(["predict", str(calibrated.path), *TEXTS]) == 0
    printed = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == classifier.answers(classifier.classify(TEXTS))
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    arguments = ["--input", str(tmp_path / "texts.csv"), "--output", str(tmp_path / "out.parquet")]
    assert main(["predict", str(calibrated.path), *arguments]) == 0
    assert pq.read_table(tmp_path / "out.parquet")["label"].to_pylist() == printed


def test_scores_tell_how_sure_and_how_right(runs):
    entry = runs[0].scores()["splits"]["test"]
    assert sum(found["count"] for found in entry["reliability"]) == entry["count"]
    assert entry["coverage"]["accuracy"][-1] == pytest.approx(entry["metrics"]["accuracy"]["value"])
    assert 0 <= entry["metrics"]["ece"]["value"] <= 1
    brier = entry["metrics"]["brier"]
    assert brier["low"] <= brier["value"] <= brier["high"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for something by its old name
def test_adapters_bring_the_temperature_with_their_head(tmp_path):
    base = train(small_recipe(tmp_path, "encoder", rows=120))
    model = {"family": "encoder", "model_name_or_path": str(base.model_directory), "tuning": "lora"}
    (tmp_path / "second").mkdir()
    recipe = small_recipe(tmp_path / "second", model, rows=120, evaluation={"calibration": "temperature"})
    run = train(recipe)
    merged = load_classifier(str(run.path))
    whole = AutoModelForSequenceClassification.from_pretrained(base.model_directory)
    beside = PeftModel.from_pretrained(whole, str(run.adapter_directory)).eval()
    encoded = merged.tokenizer(TEXTS[:4], padding=True, return_tensors="pt")
    expected = merged.model.eval()(**encoded).logits
    assert np.allclose(beside(**encoded).logits.detach(), expected.detach(), atol=1e-4)
    assert run.scores()["calibration"]["temperature"] != 1


def test_what_it_is_not_for_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"evaluation\.calibration and neutral_accuracy are for neural models"):
        small_recipe(tmp_path, {"family": "tfidf"}, evaluation={"calibration": "temperature"})
    rows = [f"{text},{('a', 'b', 'c')[number % 3]}" for number, (text, _) in enumerate(review_rows(90))]
    (tmp_path / "three.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    recipe = small_recipe(
        tmp_path, "lstm", data={"train_file": str(tmp_path / "three.csv")}, evaluation={"neutral_accuracy": 0.9}
    )
    with pytest.raises(UserError, match="for two labels; the data has 3"):
        train(recipe)
