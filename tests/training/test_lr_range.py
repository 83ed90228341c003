"""The range test: the rates at which a model learns, and what is said of them."""

import json
from itertools import pairwise

import pytest
import torch
from reviews import small_recipe
from training_setup import read_json

from finetune.cli import main
from finetune.errors import UserError
from finetune.recipe import write_yaml
from finetune.training.lr_range import RangePoint, _steepest, learning_rate_range


def test_a_range_is_climbed_until_the_loss_runs_away(tmp_path):
    recipe = small_recipe(tmp_path, "lstm", rows=200, training={"optimizer": "sgd", "learning_rate": 0.5})
    found = learning_rate_range(recipe, 1e-4, 1e4, 60)
    rates = [point.learning_rate for point in found.points]
    assert rates[0] == pytest.approx(1e-4)
    ratios = [after / before for before, after in pairwise(rates)]
    assert ratios == pytest.approx([1e8 ** (1 / 59)] * len(ratios))
    assert found.steepest is not None
    assert rates[0] < found.steepest <= found.lowest < 1e4
    assert found.points[-1].smoothed > 1.2 * min(point.smoothed for point in found.points)
    again = learning_rate_range(recipe, 1e-4, 1e4, 60)
    assert again == found
    assert found.points[0].loss == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=0.05)  # nothing learnt yet


def test_the_steepest_fall_is_before_the_lowest_point():
    def points(losses):
        return [RangePoint(10.0**i, loss, loss) for i, loss in enumerate(losses)]

    assert _steepest(points([5, 5, 5, 4, 3, 2, 1, 1, 0.9, 0.9, 6])) == 10.0**3  # from the first to the sixth, 3 in all
    assert _steepest(points([1, 2, 3, 4, 5, 6, 7, 8])) is None
    assert _steepest(points([2, 1])) is None


def test_the_command_writes_figures_words_and_a_plot(tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(write_yaml(small_recipe(tmp_path, "gru", rows=60).model_dump(mode="json")), encoding="utf-8")
    output = tmp_path / "range"
    command = ["lr-range", str(recipe), "--output", str(output), "--steps", "30", "--highest", "10"]
    assert main([*command, "--training.batch_size", "16"]) == 0
    said = capsys.readouterr().out
    figures = read_json(output / "lr_range.json")
    assert f"It is lowest at {figures['lowest']:.1e}" in said
    assert (output / "lr_range.md").read_text(encoding="utf-8") == said[:-1]
    plot = (output / "lr_range.svg").read_text(encoding="utf-8")
    assert plot.startswith("<svg ")
    assert "Learning rate" in plot
    assert not (tmp_path / "runs").exists()  # nothing is kept of the model
    assert main(command) == 0  # an earlier one is replaced
    assert main(["lr-range", str(recipe), "--output", str(tmp_path)]) == 2
    assert "choose another --output" in capsys.readouterr().err
    assert main(["lr-range", str(recipe), "--output", str(output), "--lowest", "2"]) == 2
    assert "it must rise" in capsys.readouterr().err
    assert json.loads((output / "lr_range.json").read_text())["optimizer"] == "adamw"


def test_a_floor_has_no_learning_rate(tmp_path):
    with pytest.raises(UserError, match="a tfidf floor has no learning rate"):
        learning_rate_range(small_recipe(tmp_path, {"family": "tfidf"}))
