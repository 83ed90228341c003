"""Optimizers, learning rates by layer, gradual unfreezing and schedules."""

import math

import pytest
import torch
from reviews import small_recipe
from torch import nn
from training_setup import prepare, run_loop
from transformers import AutoConfig, AutoModelForSequenceClassification

from finetune.errors import UserError
from finetune.models.layers import layer_depths
from finetune.recipe import Training
from finetune.training.optim import build_optimizer, build_scheduler, keep_frozen

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 40,
}
ENCODERS = {
    "bert": SMALL,
    "roberta": SMALL,
    "electra": {**SMALL, "embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16, "vocab_size": 40},
    "albert": {**SMALL, "embedding_size": 8},
    "deberta-v2": SMALL,
    "modernbert": {
        **SMALL,
        "pad_token_id": 0,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "eos_token_id": 2,
        "bos_token_id": 1,
    },
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40},
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_layers_are_told_by_their_distance_from_the_text(kind):
    config = AutoConfig.for_model(kind, **ENCODERS[kind])
    depths = layer_depths(AutoModelForSequenceClassification.from_config(config))
    layers = 1 if kind == "albert" else 2  # its layers are one set of weights
    assert set(depths.values()) == set(range(layers + 2))
    lowest = [name for name, depth in depths.items() if depth == 0]
    assert all("emb" in name or "wte" in name or "wpe" in name for name in lowest)
    assert any("word" in name or "wte" in name or "tok_embeddings" in name for name in lowest)
    top = [name for name, depth in depths.items() if depth == layers + 1]
    assert any("classifier" in name or "score" in name for name in top)
    assert not any(".1." in name and ("layer" in name or ".h." in name) for name in top)


def test_lower_layers_learn_slower(tmp_path):
    model = prepare(tmp_path, "encoder", rows=20).fresh_model()
    training = Training(layerwise_lr_decay=0.5, learning_rate=1e-3)
    optimizer = build_optimizer(model, training)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    depths = layer_depths(model)
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == 1e-3 * 0.5 ** (3 - depths[name])
    assert len(rates) == len(list(model.parameters()))
    assert optimizer.param_groups[0]["lr"] == 1e-3  # what the log shows
    scheduler = build_scheduler(optimizer, training, 10)
    assert scheduler.get_last_lr()[0] == 0  # warm-up
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr()[-1] == pytest.approx(1e-3 * 0.5**3)


def test_layers_are_unfrozen_from_the_top(tmp_path):
    setup = prepare(
        tmp_path, "encoder", rows=40, gradual_unfreezing=True, num_train_epochs=2, metric_for_best_model="loss"
    )
    before = {name: parameter.detach().clone() for name, parameter in setup.fresh_model().named_parameters()}
    depths = layer_depths(setup.fresh_model())
    model = setup.fresh_model()
    for epoch in range(4):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        keep_frozen(model, epoch)
        trained = {depths[name] for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert trained == set(range(max(0, 3 - epoch), 4))
    trained_model = setup.fresh_model()
    run_loop(setup, trained_model)
    changed = {depths[name] for name, p in trained_model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {2, 3}  # two epochs: the head, then the layer below it


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.3), ("adafactor", 0.1)])
def test_every_optimizer_learns_a_few_rows_by_heart(tmp_path, optimizer, rate):
    training = {"optimizer": optimizer, "learning_rate": rate, "num_train_epochs": 30, "warmup_ratio": 0.0}
    setup = prepare(tmp_path, "gru", rows=24, dropout=0.0, **training)
    losses = [record["loss"] for record in run_loop(setup)]
    assert sum(losses[-9:]) < 0.75 * sum(losses[:9])


def test_schedules_have_their_shapes():
    def rates(**values):
        layer = nn.Linear(2, 2)
        training = Training(learning_rate=1.0, **values)
        optimizer = build_optimizer(layer, training)
        scheduler = build_scheduler(optimizer, training, 100)
        found = []
        for _ in range(100):
            found.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        return found

    linear = rates(lr_scheduler_type="linear")
    assert (linear[0], max(linear), linear.index(max(linear))) == (0, 1, 10)
    one_cycle = rates(lr_scheduler_type="one_cycle", warmup_ratio=0.3)
    assert one_cycle[0] == pytest.approx(1 / 25)
    assert max(one_cycle) == pytest.approx(1, rel=1e-2)
    assert 28 <= one_cycle.index(max(one_cycle)) <= 31
    assert one_cycle[-1] < 1e-3
    # From the middle of its fall: the cosine is half way down.
    assert one_cycle[65] == pytest.approx(0.5, abs=0.03)
    inverse = rates(lr_scheduler_type="inverse_sqrt")
    assert inverse[40] / inverse[90] == pytest.approx(math.sqrt(90 / 40), rel=0.02)
    assert rates(lr_scheduler_type="constant")[11:] == [1.0] * 89


@pytest.mark.parametrize(("ratio", "steps"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.0, 5), (0.9, 1), (0.5, 1)])
def test_one_cycle_has_any_length(ratio, steps):
    training = Training(learning_rate=1.0, lr_scheduler_type="one_cycle", warmup_ratio=ratio)
    optimizer = build_optimizer(nn.Linear(2, 2), training)
    scheduler = build_scheduler(optimizer, training, steps)
    for _ in range(steps):
        assert 0 <= scheduler.get_last_lr()[0] <= 1
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"training": {"momentum": 0.5}}, "training.momentum is for sgd"),
        ({"training": {"layerwise_lr_decay": 1.5}}, "layerwise_lr_decay"),
        ({"training": {"optimizer": "lion"}}, "optimizer"),
        (
            {
                "training": {"layerwise_lr_decay": 0.9},
                "model": {
                    "family": "encoder",
                    "from_scratch": None,
                    "model_name_or_path": "embedded:mini-bert-ko",
                    "tuning": "frozen",
                },
            },
            "are for model.tuning full",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, values, reason):
    with pytest.raises(UserError, match=reason):
        small_recipe(tmp_path, values.pop("model", "lstm"), **values)
