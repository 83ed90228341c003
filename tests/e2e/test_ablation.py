"""`finetune ablate`: variants by seeds in one table, paired intervals, gains in words, cells resumed."""

import json
import re

import pytest
from command_line import fails
from reviews import write_csv

from finetune.ablation import load_variants, shipped_variants
from finetune.cli import main
from finetune.reporting.ablation import ablation_markdown

GRU = """
name: gru
data: {train_file: reviews.csv}
text: {vocabulary_size: 200, max_length: 16}
model: {family: recurrent, cell: gru, embedding_size: 12, hidden_size: 8}
training: {num_train_epochs: 1, batch_size: 16, learning_rate: 1e-2, threads: 1}
evaluation: {bootstrap_samples: 100}
"""
VARIANTS = """
recipe: gru.yaml
common: {model.embedding_size: 8}
variants:
  none: {training.max_steps: 0}
  gru: {}
  bag: {model: {family: bag, embedding_size: 8}, training.learning_rate: 5e-2}
gains:
  - {from: none, to: bag, by: [gru]}
  - {from: none, to: elsewhere, by: [gru]}
"""
ARGUMENTS = ("ablate", "variants.yaml", "--seeds", "2", "--output", "study", "--data.max_train_rows", "120")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ablation")
    write_csv(directory / "reviews.csv", 300)
    (directory / "gru.yaml").write_text(GRU, encoding="utf-8")
    (directory / "variants.yaml").write_text(VARIANTS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert main(ARGUMENTS) == 0
    return directory


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_the_table_says_what_the_runs_scored_and_cost(folder):
    summary = json.loads((folder / "study" / "ablation.json").read_text(encoding="utf-8"))
    assert list(summary["variants"]) == ["none", "gru", "bag"]
    common = {"model.embedding_size": "8"}
    assert summary["bases"] == [{"recipe": "gru", "common": common, "variants": ["none", "gru", "bag"]}]
    page = (folder / "study" / "ablation.md").read_text(encoding="utf-8")
    assert "\n\nAll are gru, with `model.embedding_size 8`. Means over 2 seed(s)" in page
    for name, entry in summary["variants"].items():
        for seed, accuracy in enumerate(entry["by_seed"]):
            run = folder / "study" / "runs" / f"{name}-seed{seed}"
            scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
            assert scores["splits"]["test"]["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
            assert scores["splits"]["test"]["times_scored"] == 1
            assert scores["cost"]["trainable_parameters"] == entry["trainable_parameters"]
        score, difference = entry["accuracy"], entry["difference"]
        assert score["low"] <= score["value"] <= score["high"]
        assert difference["value"] == pytest.approx(
            score["value"] - summary["variants"]["none"]["accuracy"]["value"], abs=1e-12
        )
    page = (folder / "study" / "ablation.md").read_text(encoding="utf-8")
    assert page == ablation_markdown(summary)
    assert '| bag | `model {"family": "bag", "embedding_size": "8"}`, `training.learning_rate 5e-2` |' in page
    assert "after training on 120" in page


def test_seeds_draw_samples_of_their_own(folder):
    rows = set()
    for seed in (0, 1):
        recipe = (folder / "study" / "runs" / f"gru-seed{seed}" / "recipe.yaml").read_text(encoding="utf-8")
        assert f"train_sample_seed: {seed}" in recipe
        assert f"\nseed: {seed}" in recipe
        data = json.loads((folder / "study" / "runs" / f"gru-seed{seed}" / "data.json").read_text(encoding="utf-8"))
        rows.add(data["splits"]["train"]["rows_fingerprint"])
    assert len(rows) == 2


def test_gains_are_shares_of_what_lies_between(folder):
    summary = json.loads((folder / "study" / "ablation.json").read_text(encoding="utf-8"))
    (gain,) = summary["gains"]  # the other one's variant is not in the table
    none, gru, bag = (summary["variants"][name]["accuracy"]["value"] for name in ("none", "gru", "bag"))
    assert gain["gain"]["value"] == pytest.approx(bag - none)
    assert gain["gain"]["low"] > 0
    assert gain["share"]["value"] == pytest.approx((gru - none) / (bag - none))
    page = (folder / "study" / "ablation.md").read_text(encoding="utf-8")
    assert f"gru gives {gain['share']['value']:.0%} [" in page


def test_no_place_of_this_machine_is_told(folder):
    (folder / "places.yaml").write_text(
        f"recipe: gru.yaml\nvariants:\n  a: {{model.initial_embeddings: {folder / 'vectors'}}}\n", encoding="utf-8"
    )
    ((variant, recipe),), _ = load_variants(["places.yaml"])
    assert variant.changes == {"model.initial_embeddings": "./vectors"}
    assert recipe.model.initial_embeddings == str(folder / "vectors")


def test_a_second_call_trains_nothing(folder, capsys):
    before = (folder / "study" / "ablation.md").read_bytes()
    assert main(ARGUMENTS) == 0
    assert capsys.readouterr().err.count("is finished already") == 6
    assert (folder / "study" / "ablation.md").read_bytes() == before


def test_shipped_variants_hold_together():
    counts = {name: len(load_variants([name])[0]) for name in shipped_variants()}
    assert counts.pop("noise") == 5
    assert min(counts.values()) > 8
    # The README's table is of both.
    variants, _ = load_variants(sorted(shipped_variants()))
    assert len({variant.name for variant, _ in variants}) == len(variants)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: gru.yaml\n", "two keys are needed, recipe and variants"),
        ("recipe: gru.yaml\nvariants: {a: {}}\ncommon: [b]\n", "common has to name fields"),
        ("recipe: gru.yaml\nvariants: [a, b]\n", "under variants stands a name"),
        ("recipe: gru.yaml\nvariants: {a: {model.size: 3}}\n", "variant a: .*model\\.size: unknown key"),
        ("recipe: gru.yaml\nvariants: {a: {}}\ngains: [a]\n", "gains is a list of"),
        ("recipe: gru.yaml\nvariants: {a: {}}\ngains: [{from: a, to: a, by: a}]\n", "gains is a list of"),
        ("recipe: gru.yaml\nvariants: {a: {evaluation.score_test: false}}\n", "leaves the test split sealed"),
        ("recipe: gru.yaml\nvariants: {a: {}, b: {data.text_column: other}}\n", "b has other data than a"),
    ],
)
def test_a_users_error_is_one_line(folder, capsys, text, message):
    (folder / "broken.yaml").write_text(text, encoding="utf-8")
    assert re.search(message, fails(capsys, "ablate", "broken.yaml", "--output", "broken"))


def test_a_file_that_is_not_there_is_named(capsys):
    assert "nothing.yaml: No such file" in fails(capsys, "ablate", "nothing.yaml", "--output", "broken")
