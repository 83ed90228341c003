"""Gradients by distance: against hand and finite differences, against theory, and the command from recipe to page."""

import json
import math
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_line import fails
from reviews import FILLER, MODELS, NEGATIVE, POSITIVE, small_recipe
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from finetune.cli import main
from finetune.data import load_splits
from finetune.errors import UserError
from finetune.gradients import Plan, embedding_gradients, lineup, scale_recurrence, summarize
from finetune.gradients.rows import read_texts
from finetune.gradients.variants import prepare
from finetune.models.recurrent import RecurrentConfig, RecurrentForSequenceClassification
from finetune.recipe import load_recipe

LABELS = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
ROWS, LENGTH, SIZE = 5, 12, 16


def small_model(kind, **values):
    """A model in double precision, as it is measured."""
    torch.manual_seed(3)
    if kind == "transformer":
        config = BertConfig(vocab_size=50, hidden_size=SIZE, num_hidden_layers=2, num_attention_heads=2,
                            intermediate_size=32, max_position_embeddings=32, **LABELS)  # fmt: skip
        return BertForSequenceClassification(config).double().eval()
    config = RecurrentConfig(vocab_size=50, cell=kind, embedding_size=SIZE, hidden_size=SIZE, **LABELS, **values)
    return RecurrentForSequenceClassification(config).double().eval()


def small_batch(length=LENGTH):
    torch.manual_seed(4)
    return {
        "input_ids": torch.randint(5, 50, (ROWS, length)),
        "attention_mask": torch.ones(ROWS, length, dtype=torch.long),
        "labels": torch.arange(ROWS) % 2,
    }


# --- the quantity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.5])
def test_without_its_tanh_a_gradient_is_multiplied_by_the_gain_at_each_step(gain):
    """Pascanu et al. 2013, section 2.1: states so small that tanh is the identity, an orthogonal way in and through."""
    model = small_model("rnn")
    scale_recurrence(model, gain)
    layer = model.layers[0][0]
    nn.init.orthogonal_(layer.weight_ih_l0, 1e-6)
    assert torch.linalg.eigvals(layer.weight_hh_l0.detach()).abs().numpy() == pytest.approx(np.full(SIZE, gain))
    gradients, _ = embedding_gradients(model, small_batch())
    norms = gradients.norm(dim=-1).numpy()
    assert norms[:, :-1] / norms[:, 1:] == pytest.approx(np.full((ROWS, LENGTH - 1), gain), rel=1e-3)
    profile = summarize(norms[:, ::-1])
    assert profile.slope.value == pytest.approx(math.log10(gain), abs=1e-4)
    assert profile.first_to_last == pytest.approx(gain ** (LENGTH - 1), rel=1e-2)
    if gain != 1:
        assert profile.half_life == pytest.approx(math.log(0.5) / math.log(gain), rel=1e-3)


def test_a_plain_rnns_gradients_are_those_of_backpropagation_by_hand():
    model, batch = small_model("rnn"), small_batch()
    found, loss = embedding_gradients(model, batch)
    layer, head = model.layers[0][0], model.classifier
    inward, across = (weight.detach().numpy() for weight in (layer.weight_ih_l0, layer.weight_hh_l0))
    embedded = model.embedding(batch["input_ids"]).detach().numpy()
    states = [np.zeros((ROWS, SIZE))]
    for t in range(LENGTH):
        states.append(np.tanh(embedded[:, t] @ inward.T + states[-1] @ across.T))
    logits = states[-1] @ head.weight.detach().numpy().T
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = np.eye(2)[batch["labels"]]
    assert loss == pytest.approx(-np.log((shares * wanted).sum(axis=1)).sum())
    of_state = (shares - wanted) @ head.weight.detach().numpy()
    for t in reversed(range(LENGTH)):
        of_sum = of_state * (1 - states[t + 1] ** 2)
        assert found[:, t].numpy() == pytest.approx(of_sum @ inward, rel=1e-9, abs=1e-18)
        of_state = of_sum @ across


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "transformer"])
def test_gradients_are_finite_differences_of_each_rows_own_loss(kind):
    model, batch = small_model(kind), small_batch()
    found, _ = embedding_gradients(model, batch)
    assert found.shape == (ROWS, LENGTH, SIZE)
    assert model.get_input_embeddings().weight.grad is None  # nothing is left behind
    step = 1e-5
    for row, place, dimension in ((0, 0, 0), (1, 5, 3), (4, LENGTH - 1, 7)):
        losses = []
        for sign in (1, -1):
            shift = torch.zeros(ROWS, LENGTH, SIZE, dtype=torch.double)
            shift[row, place, dimension] = sign * step
            hook = model.get_input_embeddings().register_forward_hook(lambda _, __, out, shift=shift: out + shift)
            with torch.no_grad():
                logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
            hook.remove()
            losses.append(nn.functional.cross_entropy(logits, batch["labels"], reduction="none"))
        difference = (losses[0] - losses[1]) / (2 * step)
        assert float(difference[row]) == pytest.approx(float(found[row, place, dimension]), rel=1e-4, abs=1e-11)
        assert difference.abs().sum() == difference.abs()[row]  # no other row's loss


def test_a_model_without_one_table_of_embeddings_is_refused():
    model = small_model("rnn")
    model.embedding = nn.Sequential(model.embedding)
    model.get_input_embeddings = lambda: nn.Embedding(2, 2)
    with pytest.raises(UserError, match="one table of embeddings"):
        embedding_gradients(model, small_batch())


def test_the_line_is_that_of_the_mean_logarithms_and_its_interval_that_of_the_rows():
    generator = np.random.default_rng(0)
    distances = np.arange(20)
    logarithms = -0.3 * distances + generator.normal(0, 0.2, (30, 20)) + generator.normal(0, 1, (30, 1))
    profile = summarize(10**logarithms)
    slope, height = np.polyfit(distances, logarithms.mean(axis=0), 1)
    assert profile.slope.value == pytest.approx(slope)
    left = logarithms.mean(axis=0) - slope * distances - height
    assert profile.r_squared == pytest.approx(1 - left.var() / logarithms.mean(axis=0).var())
    assert profile.slope.low < -0.3 < profile.slope.high
    assert np.log10(profile.norms) == pytest.approx(logarithms.mean(axis=0))
    assert np.log10(profile.lower) == pytest.approx(np.quantile(logarithms, 0.25, axis=0))
    assert profile.half_life == pytest.approx(math.log10(2) / -slope)


def test_places_without_a_gradient_are_left_out_of_the_line():
    norms = np.tile(10.0 ** -np.arange(10), (4, 1))
    norms[2, 7:] = 0.0
    norms[3, 6] = np.inf
    profile = summarize(norms)
    assert profile.norms[6:] == (None,) * 4
    assert profile.slope.value == pytest.approx(-1)
    assert profile.first_to_last is None
    nothing = summarize(np.zeros((4, 10)))
    assert nothing.slope.value is None
    assert nothing.norms == (None,) * 10


# --- the command ------------------------------------------------------------------------------------------------------

RECIPE = """
name: {name}
data: {{train_file: reviews.csv}}
text: {{unit: character, max_length: 60}}
model: {model}
training: {{batch_size: 8, learning_rate: 5e-3, threads: 1, max_grad_norm: 0.2}}
"""
RECURRENT = "{{family: recurrent, cell: {}, embedding_size: 24, hidden_size: 24{}}}"
ENCODER = (
    "{family: encoder, from_scratch: "
    "{hidden_size: 24, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 48}}"
)
ARGUMENTS = ("gradients", "rnn.yaml", "lstm.yaml", "encoder.yaml", "--lengths", "8,32", "--rows", "24")
MEASURED = (*ARGUMENTS, "--steps", "0,4,12", "--recurrent_gain", "0.5,2", "--report_to", "tensorboard")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recipes on 120 reviews, of which many are long, and what the command says of them."""
    directory = tmp_path_factory.mktemp("gradients")
    chosen = random.Random(0)
    lines = ["text,label"]
    for number in range(120):
        label, phrases = (("positive", POSITIVE), ("negative", NEGATIVE))[number % 2]
        words = [*chosen.sample(FILLER, chosen.randint(2, 8)), chosen.choice(phrases)]
        lines.append(f"{' '.join(words)} {number},{label}")
    (directory / "reviews.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    models = {
        "rnn": RECURRENT.format("rnn", ""),
        "lstm": RECURRENT.format("lstm", ", bidirectional: true, pooling: max"),
        "encoder": ENCODER,
    }
    for name, model in models.items():
        (directory / f"{name}.yaml").write_text(RECIPE.format(name=name, model=model), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert main([*MEASURED, "--output", "found"]) == 0
    return directory


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)


def read(directory):
    report = json.loads((directory / "gradients.json").read_text(encoding="utf-8"))
    return report, {model["name"]: model for model in report["models"]}


def profile_of(model, step, length=32, clipped=True):
    wanted = (step, length, clipped if step else None)
    return next(p for p in model["profiles"] if (p["step"], p["length"], p["clipped"]) == wanted)


@pytest.fixture(scope="module")
def models(folder):
    return read(folder / "found")[1]


def test_a_plain_rnns_gradient_vanishes_exponentially(models):
    profile = profile_of(models["rnn"], 0)
    assert len(profile["norms"]) == 32
    assert profile["r_squared"] > 0.99
    assert profile["slope"]["high"] < -0.1
    assert profile["first_to_last"] < 1e-4
    assert profile["largest_singular_values"][0] < 1.5
    assert 0.4 < profile["spectral_radii"][0] < 0.8  # uniform weights: about 1 / sqrt(3)
    # The same rows cut shorter have the same slope.
    assert profile_of(models["rnn"], 0, 8)["slope"]["value"] == pytest.approx(profile["slope"]["value"], rel=0.3)


def test_an_lstm_with_its_forget_gates_open_keeps_more_and_a_transformer_all(models):
    rnn, lstm, encoder = (profile_of(models[name], 0) for name in ("rnn", "lstm", "encoder"))
    assert rnn["slope"]["high"] < lstm["slope"]["low"] < lstm["slope"]["high"] < 0
    assert lstm["first_to_last"] > 20 * rnn["first_to_last"]
    assert abs(encoder["slope"]["value"]) * 31 < 0.5
    assert 0.3 < encoder["first_to_last"] < 3


def test_large_recurrent_weights_explode_and_small_ones_vanish_as_theory_says(models):
    small, large = (profile_of(models[f"rnn (gain {gain})"], 0) for gain in ("0.5", "2"))
    assert small["spectral_radii"] == pytest.approx([0.5])
    assert large["largest_singular_values"] == pytest.approx([2])
    assert small["slope"]["value"] == pytest.approx(math.log10(0.5), rel=0.05)
    assert small["r_squared"] > 0.99
    assert large["slope"]["low"] > 0.02
    assert large["slope"]["value"] < math.log10(2)  # tanh holds it back
    assert large["half_life"] < 0
    assert large["first_to_last"] > 10


def test_clipping_bounds_what_a_step_is_taken_with(models):
    assert len(models) == 5
    for model in models.values():
        clipped, free = model["trainings"]
        assert (clipped["max_grad_norm"], free["max_grad_norm"]) == (0.2, None)
        assert len(clipped["norms"]) == len(free["norms"]) == 12
        assert max(clipped["applied_norms"]) <= 0.2 * (1 + 1e-5)
        expected = [min(norm, 0.2) for norm in clipped["norms"]]
        assert clipped["applied_norms"] == pytest.approx(expected, rel=1e-4)
        assert free["applied_norms"] == pytest.approx(free["norms"], rel=1e-5)
        assert free["norms"][0] == pytest.approx(clipped["norms"][0])  # they begin alike
        assert max(free["norms"]) > 0.2
    peaks = {name: max(model["trainings"][1]["norms"]) for name, model in models.items()}
    assert max(peaks, key=peaks.__getitem__) == "rnn (gain 2)"


def test_models_are_measured_before_during_and_after(models):
    for model in models.values():
        measured = [(p["step"], p["length"], p["clipped"]) for p in model["profiles"]]
        trained = [(step, 32, clipped) for clipped in (True, False) for step in (4, 12)]
        assert measured == [(0, 8, None), (0, 32, None), *trained]
    changed = [profile_of(models["rnn"], step)["norms"] for step in (0, 4, 12)]
    assert changed[0] != changed[1] != changed[2]
    assert models["lstm"]["changes"] == ["it reads in one direction", "its head sees the last state alone"]
    assert models["rnn"]["changes"] == []


def test_the_files_and_what_they_say(folder, models):
    output = folder / "found"
    assert {path.name for path in output.iterdir()} == {"gradients.json", "gradients.md", "index.html", "tracking"}
    table = (output / "gradients.md").read_text(encoding="utf-8")
    page = (output / "index.html").read_text(encoding="utf-8")
    slope = profile_of(models["rnn"], 12)["slope"]
    assert f"| rnn | 12 | {slope['value']:+.4f} [{slope['low']:+.4f}, {slope['high']:+.4f}] |" in table
    assert "Before training the first of 32 tokens gets the last one's gradient times" in table
    assert "in a linear network it would be 2 times as large: tanh lets less through" in table
    assert "encoder: about flat before training" in table
    assert "lstm was changed for this: it reads in one direction and its head sees the last state alone." in table
    assert "With clipping at 0.2 no step has more than 0.20" in table
    assert str(folder) not in (output / "gradients.json").read_text(encoding="utf-8")
    assert page.count('<svg class="plot"') == 8
    assert page.count("var(--series-") > 20
    assert "#0102" not in page  # every colour is the page's own
    assert not re.findall(r"<script|<link|src=|https?:", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:xlink:href="|url\()#([\w-]+)', page)) <= set(ids)


def test_tensorboard_has_the_steps_and_the_distances(folder, models):
    events = EventAccumulator(str(folder / "found" / "tracking" / "rnn-gain-2-unclipped"))
    events.Reload()
    assert {"grad_norm", "loss", "learning_rate", "gradient_norm_by_distance/step_12"} <= set(events.Tags()["scalars"])
    norms = [event.value for event in events.Scalars("grad_norm")]
    assert norms == pytest.approx(models["rnn (gain 2)"]["trainings"][1]["norms"], rel=1e-5)
    by_distance = [event.value for event in events.Scalars("gradient_norm_by_distance/step_12")]
    profile = profile_of(models["rnn (gain 2)"], 12, clipped=False)
    assert by_distance == pytest.approx(profile["norms"], rel=1e-5)


def test_the_same_seed_gives_the_same_numbers_and_measuring_changes_no_training(folder, models):
    arguments = ("gradients", "rnn.yaml", "--lengths", "32", "--rows", "24", "--steps", "12", "--output")
    assert main([*arguments, "again"]) == 0
    assert main([*arguments, "again"]) == 0  # an earlier one is replaced
    assert main([*arguments, "other", "--seed", "7"]) == 0
    again, other = (read(folder / name)[1]["rnn"] for name in ("again", "other"))
    assert again["trainings"] == models["rnn"]["trainings"]  # which was measured at step 4 too
    # The rows are those that the other recipes could read as well, which here are the same.
    assert profile_of(again, 12) == profile_of(models["rnn"], 12)
    assert profile_of(other, 0)["norms"] != profile_of(again, 0)["norms"]
    assert read(folder / "other")[0]["seeds"] == [7]


def test_deeper_models_and_texts_that_are_too_short(folder, capsys):
    arguments = ("rnn.yaml", "encoder.yaml", "--layers", "1,2", "--lengths", "16,500", "--rows", "8", "--steps", "0")
    assert main(["gradients", *arguments, "--output", "deep"]) == 0
    report, models = read(folder / "deep")
    assert list(models) == ["rnn (1 layer)", "rnn (2 layers)", "encoder (1 layer)", "encoder (2 layers)"]
    assert [model["layers"] for model in models.values()] == [1, 2, 1, 2]
    assert report["lengths"][0] == 16
    assert 16 < report["lengths"][1] <= 58  # max_length, less what the encoder puts around a text
    assert f"--lengths goes up to {report['lengths'][1]}" in capsys.readouterr().err
    assert len(profile_of(models["rnn (2 layers)"], 0, 16)["spectral_radii"]) == 2
    assert all(model["trainings"] == [] for model in models.values())
    assert "By training step" not in (folder / "deep" / "index.html").read_text(encoding="utf-8")


def test_the_measured_rows_are_the_longest_the_same_for_all_and_not_trained_on():
    recipes = [prepare(load_recipe(name))[0] for name in ("rnn.yaml", "encoder.yaml")]
    splits = load_splits(recipes[0].data)
    (plain, around), lengths, rows = read_texts(recipes, splits, Plan(lengths=(8, 20), rows=10))
    assert (lengths, rows) == ((8, 20), 10)
    for texts, added in ((plain, 1), (around, 2)):
        counts = sorted(len(ids) for ids in texts.tokenizer(list(splits.train["text"]))["input_ids"])
        assert sorted(texts.train["length"]) == counts[:-10]  # the ten longest are not among them
        assert counts[-10] - added > 20
        for length, measured in texts.measured.items():
            assert measured.are_text.sum(axis=1).tolist() == [length] * 10
            assert measured.batch["input_ids"].shape == (10, length + added)
    read_by = [texts.measured[20].batch["input_ids"][torch.from_numpy(texts.measured[20].are_text)]
               for texts in (plain, around)]  # fmt: skip
    assert torch.equal(*read_by)


def test_more_rows_than_half_are_not_measured(tmp_path):
    recipe = small_recipe(tmp_path, {**MODELS["rnn"]}, rows=30)
    splits = load_splits(recipe.data)
    (texts,), _, rows = read_texts([recipe], splits, Plan(lengths=(4,)))
    assert rows == len(splits.train) // 2 == len(splits.train) - len(texts.train)


def test_the_lineup_takes_overrides():
    recipes = lineup([("seed", "5")])
    assert [recipe.name for recipe in recipes] == ["rnn", "lstm", "gru", "transformer"]
    assert {recipe.seed for recipe in recipes} == {5}


@pytest.mark.slow
def test_the_lineup_by_the_command_itself(tmp_path):
    arguments = ["--steps", "0", "--rows", "16", "--lengths", "64", "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "finetune", "gradients", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# How far back the gradient reaches\n")
    assert "rnn (gain 2) (7 of 7)" in done.stderr
    report, models = read(tmp_path / "out")
    assert report["same_vocabulary"]
    assert profile_of(models["rnn"], 0, 64)["r_squared"] > 0.99
    assert profile_of(models["rnn"], 0, 64)["slope"]["high"] < profile_of(models["lstm"], 0, 64)["slope"]["low"] < 0
    assert abs(profile_of(models["transformer"], 0, 64)["slope"]["value"]) < 0.005


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.yaml"], "no recipe file and no shipped recipe named 'nothing.yaml'"),
        (["rnn.yaml", "rnn.yaml"], "two recipes have one name"),
        (["rnn.yaml", "--training.batch_sise", "3"], "did you mean training.batch_size?"),
        (["rnn.yaml", "--steps", "many"], "--steps many: numbers are needed, such as 0,50,200"),
        (["rnn.yaml", "--steps", "-1"], "--steps -1: from 0 on"),
        (["rnn.yaml", "--lengths", "3"], "a line needs 4 tokens or more"),
        (["rnn.yaml", "--rows", "1"], "two rows or more"),
        (["rnn.yaml", "--layers", "0"], "--layers 0: from 1 on"),
        (["rnn.yaml", "--recurrent_gain", "-1"], "numbers above 0"),
        (["rnn.yaml", "--recurrent_gain", "x"], "--recurrent_gain x: numbers are needed"),
        (["lstm.yaml", "--recurrent_gain", "1"], "no recipe has one"),
        (["rnn.yaml", "--text.max_length", "3"], "only 2 tokens of each of 43 rows can be read"),
        (["rnn.yaml", "--report_to", "paper"], "training.report_to"),
        (["quickstart-tfidf"], "recurrent models and encoders that classify are measured"),
        (["quickstart-mini-gpt"], "has task generate"),
        (["rnn.yaml", "quickstart-lstm"], "different data"),
        (["quickstart-mini-bert", "--layers", "2"], "starts from a checkpoint"),
        (["rnn.yaml", "--data.text_pair_column", "text"], "reads pairs of texts"),
    ],
)
def test_a_users_error_is_one_line(capsys, arguments, message):
    assert message in fails(capsys, "gradients", *arguments, "--output", "refused")


def test_an_output_that_holds_something_else_is_refused(folder, capsys):
    assert "holds other files" in fails(capsys, "gradients", "rnn.yaml", "--output", ".")
    assert "is a file" in fails(capsys, "gradients", "rnn.yaml", "--output", "reviews.csv")
