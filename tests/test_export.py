"""ONNX files of a run: they agree with the model, whatever the batch, or there are none."""

import json
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from checkpoints import write_checkpoint
from filelock import FileLock
from reviews import MODELS, small_recipe, write_ratings

from finetune import export
from finetune.data import load_splits
from finetune.data.splits import column
from finetune.errors import UserError
from finetune.export import export_run
from finetune.predict import load_classifier
from finetune.run import RunDirectory
from finetune.training import train

ENCODER = {**MODELS["encoder"], "from_scratch": {**MODELS["encoder"]["from_scratch"], "num_hidden_layers": 1}}
"""Torch takes seconds for each layer."""
FILES = {"agreement.json", "model.onnx", "model_int8.onnx"}


def trained(directory, model, epochs=4, **sections):
    training = {"num_train_epochs": epochs, "learning_rate": 4e-3 if epochs > 4 else 2e-2}
    return train(small_recipe(directory, model, training=training, **sections))


def rater_of(directory, model):
    data = {"train_file": str(write_ratings(directory / "ratings.csv", 120))}
    return trained(directory, model, task="rate", data=data)


@pytest.fixture(scope="module")
def classifier_run(tmp_path_factory):
    """(a stacked, bidirectional LSTM's run, what its export said, its scores as they were before)."""
    run = trained(tmp_path_factory.mktemp("classifier"), "bilstm-stacked")
    before = run.scores_file.read_bytes()
    return run, export_run(run), before


@pytest.fixture(scope="module")
def rater_run(tmp_path_factory):
    """(an encoder's run that rates, what its export said)."""
    run = rater_of(tmp_path_factory.mktemp("rater"), ENCODER)
    return run, export_run(run)


@pytest.fixture
def copied_run(classifier_run, tmp_path, monkeypatch):
    """A run whose export writes copies of files instead of making them, which is as good and takes no seconds."""
    made, _, _ = classifier_run
    run = RunDirectory(tmp_path / "run")
    run.write_recipe(made.recipe())
    run.write_json(run.data_file, made.data())
    run.model_directory.symlink_to(made.model_directory)

    def copy(file):
        shutil.copy(made.onnx_directory / file.name, file)

    monkeypatch.setattr(export, "_write_float", lambda classifier, file, run: copy(file))
    monkeypatch.setattr(export, "_write_int8", lambda source, file: copy(file))
    return run


def fake_run(directory, **sections):
    """A directory that looks like the run of a recipe as far as a refusal reads."""
    run = RunDirectory(directory / "run")
    run.write_recipe(small_recipe(directory, **sections))
    run.model_directory.mkdir()
    return run


def probabilities(file, classifier, texts, batch_size):
    """By onnxruntime and the tokenizer alone, as somebody without this package would."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    parts = []
    for start in range(0, len(texts), batch_size):
        encoded = classifier.tokenizer(
            texts[start : start + batch_size], padding=True, truncation=True, max_length=classifier.max_length,
            return_tensors="np",
        )  # fmt: skip
        parts.append(session.run(["logits"], {name: encoded[name].astype(np.int64) for name in names})[0])
    return torch.from_numpy(np.concatenate(parts)).double().softmax(dim=-1).numpy()


def held(run, said):
    """The files agree with the model, and what is written of them is what was said."""
    scores = np.stack(pq.read_table(run.predictions_file("test"))["scores"].to_pylist())
    # A model that says the same of all rows would agree with anything.
    assert scores[:, 0].std() > 1e-3
    assert {path.name for path in run.onnx_directory.iterdir()} == FILES
    assert json.loads((run.onnx_directory / "agreement.json").read_text(encoding="utf-8")) == said
    assert not list(run.path.glob(".*"))
    for name, found in said["files"].items():
        assert found["bytes"] == (run.onnx_directory / name).stat().st_size
        assert 0 < found["mean_difference"] < found["largest_difference"]
    assert said["files"]["model.onnx"]["largest_difference"] < 1e-5


def test_a_batch_of_any_size_and_length_equals_single_rows_and_the_model(classifier_run):
    run, _, _ = classifier_run
    classifier = load_classifier(str(run.path))
    texts = ["정말 재미있다", *column(load_splits(run.recipe().data).test, "text"), "a", "영화 " * 100]
    expected = classifier.classify(texts)
    for batch_size in (1, 3, len(texts)):
        found = probabilities(run.onnx_directory / "model.onnx", classifier, texts, batch_size)
        assert np.abs(found - expected).max() < 1e-5
    found = probabilities(run.onnx_directory / "model_int8.onnx", classifier, texts, 5)
    assert 1e-5 < np.abs(found - expected).max() < 0.2


def test_the_files_are_described_as_they_are(classifier_run):
    run, said, _ = classifier_run
    held(run, said)
    test = run.data()["splits"]["test"]
    assert said["rows"] == said["rows_read_alone"] == 24
    assert (said["split"], said["of"], said["rows_fingerprint"]) == ("test", "probability", test["rows_fingerprint"])
    whole, small = said["files"]["model.onnx"], said["files"]["model_int8.onnx"]
    assert whole["rows"] == small["rows"] == 24
    assert whole["same_label"] == 1.0
    assert small["largest_difference"] > whole["largest_difference"]
    assert small["bytes"] < whole["bytes"] / 2


def test_a_rating_is_compared_as_a_number(rater_run):
    run, said = rater_run
    held(run, said)
    assert said["of"] == "rating"
    assert all("same_label" not in found for found in said["files"].values())
    model = onnx.load(run.onnx_directory / "model.onnx")
    axes = {given.name: [axis.dim_param for axis in given.type.tensor_type.shape.dim] for given in model.graph.input}
    assert list(axes) == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(names == ["batch", "length"] for names in axes.values())
    assert [given.name for given in model.graph.output] == ["logits"]
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 1


def test_large_weights_have_eight_bits(classifier_run, rater_run):
    for run, operator in ((classifier_run[0], "DynamicQuantizeLSTM"), (rater_run[0], "MatMulInteger")):
        onnx.checker.check_model(onnx.load(run.onnx_directory / "model.onnx"), full_check=True)
        graph = onnx.load(run.onnx_directory / "model_int8.onnx").graph
        assert operator in {node.op_type for node in graph.node}
        floats = [list(part.dims) for part in graph.initializer if part.data_type == onnx.TensorProto.FLOAT]
        # What is left are biases, scales, norms, and the tables of positions and token types, which are small.
        assert max(np.prod(dims) for dims in floats) <= 32 * 32


def test_it_is_no_look_at_the_test_split_and_names_no_machine(classifier_run):
    run, _, before = classifier_run
    assert run.scores_file.read_bytes() == before
    for name in ("model.onnx", "model_int8.onnx"):
        content = (run.onnx_directory / name).read_bytes()
        assert b".py" not in content
        assert str(run.path).encode() not in content


def test_without_quantizing_there_is_one_file(copied_run):
    said = export_run(copied_run, quantize=False)
    assert list(said["files"]) == ["model.onnx"]
    assert {path.name for path in copied_run.onnx_directory.iterdir()} == FILES - {"model_int8.onnx"}


@pytest.mark.parametrize("stopped_in", ["_write_int8", "_compare", "_put_in_place"])
def test_an_interrupted_export_leaves_nothing_of_itself(copied_run, monkeypatch, stopped_in):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, stopped_in, stop)
    with pytest.raises(KeyboardInterrupt):
        export_run(copied_run)
    assert not copied_run.onnx_directory.exists()
    copied_run.onnx_directory.mkdir()
    (copied_run.onnx_directory / "earlier").touch()
    with pytest.raises(KeyboardInterrupt):
        export_run(copied_run)
    assert [path.name for path in copied_run.onnx_directory.iterdir()] == ["earlier"]
    assert not list(copied_run.path.glob(".*"))


def test_an_export_replaces_an_earlier_one_and_the_rest_of_a_killed_one(copied_run):
    copied_run.onnx_directory.mkdir()
    (copied_run.onnx_directory / "earlier").touch()
    killed = copied_run.path / ".onnx.partial"
    killed.mkdir()
    (killed / "half").touch()
    export_run(copied_run)
    assert {path.name for path in copied_run.onnx_directory.iterdir()} == FILES
    assert not killed.exists()


def test_two_exports_of_a_run_do_not_meet(copied_run):
    with (
        FileLock(copied_run.path / ".onnx.lock"),
        pytest.raises(UserError, match="another process is exporting this run"),
    ):
        export_run(copied_run)


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_a_file_that_does_not_agree_is_refused(copied_run, monkeypatch, wrong):
    exact = export._outputs

    def off(*arguments):
        found = exact(*arguments)
        found[7] += wrong
        return found

    monkeypatch.setattr(export, "_outputs", off)
    identifier = column(load_splits(copied_run.recipe().data).test, "id")[7]
    with pytest.raises(UserError, match=rf"differs from the model by .* id '{identifier}', more than 0\.0001"):
        export_run(copied_run)
    assert not copied_run.onnx_directory.exists()
    assert not list(copied_run.path.glob(".*"))


def test_only_the_first_rows_are_compared(copied_run, monkeypatch):
    monkeypatch.setattr(export, "MOST_ROWS", 10)
    monkeypatch.setattr(export, "_SINGLE_ROWS", 4)
    said = export_run(copied_run)
    assert (said["rows"], said["rows_read_alone"], said["files"]["model.onnx"]["rows"]) == (10, 4, 10)


def test_data_that_changed_is_refused(copied_run):
    recorded = copied_run.data()
    recorded["splits"]["test"]["rows_fingerprint"] = "other"
    copied_run.write_json(copied_run.data_file, recorded)
    with pytest.raises(UserError, match="the test rows are no longer those of the run; restore the data"):
        export_run(copied_run)
    assert not copied_run.onnx_directory.exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"task": "generate", "model": "lstm"}, "it writes text, .*; choose a run of one"),
        ({"task": "masked_lm", "model": "encoder"}, "has no labels yet, .*; fine-tune it: finetune train"),
    ],
)
def test_what_has_no_labels_is_refused(tmp_path, sections, message):
    with pytest.raises(UserError, match=message) as refusal:
        export_run(fake_run(tmp_path, **sections))
    assert "\n" not in str(refusal.value)


def test_a_floor_is_refused(tmp_path):
    run = fake_run(tmp_path, model={"family": "tfidf"})
    run.model_directory.rmdir()
    with pytest.raises(UserError, match=r"a tfidf floor keeps .* no model; choose a run that has a model/"):
        export_run(run)


def test_missing_packages_are_named(copied_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxscript, onnxruntime, .* scripts/setup\.sh onnx"):
        export_run(copied_run)


def test_a_model_larger_than_a_file_is_refused(copied_run, monkeypatch):
    monkeypatch.setattr(export, "_MOST_BYTES", 1000)
    with pytest.raises(UserError, match="GiB of float32 weights"):
        export_run(copied_run)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["rnn", "gru", "mean"])
def test_every_variant_agrees(tmp_path, model):
    mean = {**MODELS["bilstm-stacked"], "pooling": "mean"}
    run = trained(tmp_path, mean if model == "mean" else model, epochs=16)
    held(run, export_run(run))


@pytest.mark.slow
def test_a_recurrent_rater_agrees(tmp_path):
    run = rater_of(tmp_path, "gru")
    held(run, export_run(run))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["klue-roberta", "deberta-v3"])
def test_every_architecture_agrees(tmp_path, architecture):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", architecture)
    run = trained(tmp_path, {"family": "encoder", "model_name_or_path": str(checkpoint)}, epochs=16)
    held(run, export_run(run))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (lambda model, states, mask, lengths: states[:, int(lengths.min()) - 1], "cannot write Recurrent.* as ONNX"),
        (lambda model, states, mask, lengths: states[torch.arange(len(states)), lengths - 1], "of size 2 only"),
    ],
)
def test_a_model_that_cannot_be_written_is_refused(tmp_path, monkeypatch, pool, message):
    run = trained(tmp_path, "lstm")
    monkeypatch.setattr("finetune.models.recurrent.RecurrentForSequenceClassification._pool", pool)
    with pytest.raises(UserError, match=message) as refusal:
        export_run(run)
    assert "\n" not in str(refusal.value)
    assert not run.onnx_directory.exists()
