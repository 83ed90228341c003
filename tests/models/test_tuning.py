"""Ways to fine-tune an encoder: which weights learn, what its head sees, adapters, and features computed once."""

import json
import sys

import pytest
import torch
from checkpoints import ARCHITECTURES, write_checkpoint
from peft import PeftModel
from reviews import small_recipe
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune import tasks
from finetune.cli import main
from finetune.errors import UserError
from finetune.models import build_model, load_model, match_inputs
from finetune.models.layers import still_frozen_parts
from finetune.models.pooled import PooledEncoderForSequenceClassification
from finetune.recipe import EncoderModel, parse_recipe
from finetune.text import load_tokenizer
from finetune.training import train
from finetune.training.train import cut_frozen

LABELS = ["부정", "긍정"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Directories of the tiny random checkpoints (of two layers), by architecture."""
    directory = tmp_path_factory.mktemp("checkpoints")
    return {name: write_checkpoint(directory / name, name) for name in ARCHITECTURES}


def build(directory, **options):
    recipe = EncoderModel(model_name_or_path=str(directory), **options)
    tokenizer = load_tokenizer(str(directory))
    torch.manual_seed(0)
    model = build_model(recipe, "classify", LABELS, tokenizer, 32, attention="eager")
    return model, match_inputs(tokenizer, model)


def batch_of(tokenizer, texts):
    encoded = tokenizer(texts)
    return tasks.collate({name: ids for name, ids in encoded.items() if name != "attention_mask"}, tokenizer)


def recipe_of(tmp_path, checkpoint, training=None, **model):
    tmp_path.mkdir(exist_ok=True)
    tree = {"family": "encoder", "model_name_or_path": str(checkpoint), **model}
    return small_recipe(tmp_path, tree, rows=60, training={"num_train_epochs": 2, **(training or {})})


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "albert"])
def test_the_last_layers_and_the_head_learn_and_the_rest_stays(checkpoints, architecture, tmp_path):
    checkpoint = checkpoints[architecture]
    run = train(recipe_of(tmp_path / "one", checkpoint, tuning="last_layers", trained_layers=1))
    model, _ = build(checkpoint)
    before, after = model.state_dict(), load_file(run.model_directory / "model.safetensors")
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert any("classifier" in name for name in changed)
    layers = {name for name in changed if ".1." in name or "albert_layer_groups.0" in name}
    assert len(layers) >= 6
    assert not any("embeddings" in name or (".0." in name and architecture != "albert") for name in changed)
    cost = run.scores()["cost"]
    assert cost["trainable_parameters"] < cost["parameters"]


def test_more_layers_than_there_are_is_refused(checkpoints):
    with pytest.raises(UserError, match=r"model\.trained_layers 3: .*bert has 2 layers"):
        build(checkpoints["bert"], tuning="last_layers", trained_layers=3)
    with pytest.raises(UserError, match=r"model\.reinitialized_layers 3: .*bert has 2 layers"):
        build(checkpoints["bert"], reinitialized_layers=3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_layers_begin_anew(checkpoints, architecture):
    before, _ = build(checkpoints[architecture])
    after, _ = build(checkpoints[architecture], reinitialized_layers=1)
    weights = dict(before.named_parameters())
    changed = {name for name, value in after.named_parameters() if not torch.equal(value, weights[name])}
    of_layers = {name for name in changed if "classifier" not in name and "pooler" not in name and "head." not in name}
    assert len(of_layers) >= 4
    assert all(".1." in name or "albert_layer_groups.0" in name for name in of_layers)
    matrices = [value for name, value in after.named_parameters() if name in of_layers and value.ndim == 2]
    deviations = [float(matrix.detach().std()) for matrix in matrices]
    # ModernBERT draws what goes back into its stream smaller, by the number of layers.
    assert all(0.005 < deviation < 0.03 for deviation in deviations)


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [*((architecture, "mean") for architecture in ARCHITECTURES), ("bert", "max"), ("bert", "attention")],
)
def test_heads_over_all_states_see_them_all_and_no_padding(checkpoints, architecture, pooling, tmp_path):
    model, tokenizer = build(checkpoints[architecture], pooling=pooling, dropout=0.0)
    model.eval()
    batch = batch_of(tokenizer, ["정말 재미있다", "너무 지루하다 배우 연기가 어색하다"])
    with torch.no_grad():
        output = model(**batch, output_attentions=True)
        states = model.encoder(**batch).last_hidden_state
    length = int(batch["attention_mask"][0].sum())
    own = states[0, :length]
    if pooling == "attention":
        weights = output.attentions
        assert weights.sum(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
        assert not weights[0, length:].any()
        pooled = (weights[0, :length, None] * own).sum(dim=0)
    else:
        pooled = own.mean(dim=0) if pooling == "mean" else own.amax(dim=0)
    torch.testing.assert_close(output.logits[0], model.classifier(pooled), atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    loaded = load_model(tmp_path / "saved").eval()
    assert isinstance(loaded, PooledEncoderForSequenceClassification)
    loaded.set_attn_implementation("eager")
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, output.logits)


def test_token_types_come_through(checkpoints):
    model, tokenizer = build(checkpoints["bert"], pooling="mean")
    assert "token_type_ids" in tokenizer.model_input_names
    model.eval()
    batch = batch_of(tokenizer, ["정말 재미있다"])
    others = {**batch, "token_type_ids": torch.ones_like(batch["token_type_ids"])}
    assert not torch.equal(model(**batch).logits, model(**others).logits)
    _, tokenizer = build(checkpoints["bert"], tuning="lora")
    assert "token_type_ids" in tokenizer.model_input_names
    _, tokenizer = build(checkpoints["distilbert"], pooling="mean")
    assert "token_type_ids" not in tokenizer.model_input_names


@pytest.mark.parametrize("architecture", ["bert", "electra", "roberta", "distilbert"])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for something by its old name
def test_adapters_and_their_head_make_the_merged_model(checkpoints, architecture, tmp_path):
    checkpoint = checkpoints[architecture]
    run = train(recipe_of(tmp_path / "run", checkpoint, tuning="lora", lora={"rank": 4}, dropout=0.0))
    merged = AutoModelForSequenceClassification.from_pretrained(run.model_directory, attn_implementation="eager").eval()
    config = json.loads((run.adapter_directory / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == checkpoint.name
    # The head that was drawn here is another than the run's: the adapter has to bring its own.
    torch.manual_seed(1)
    base = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, num_labels=2, attn_implementation="eager", dtype=torch.float32
    )
    beside = PeftModel.from_pretrained(base, str(run.adapter_directory)).eval()
    batch = batch_of(AutoTokenizer.from_pretrained(run.model_directory), ["정말 재미있다", "너무 지루하다"])
    with torch.no_grad():
        torch.testing.assert_close(beside(**batch).logits, merged(**batch).logits, atol=1e-5, rtol=1e-4)
    fresh, _ = build(checkpoint)
    before, after = fresh.state_dict(), merged.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert any(name.startswith(("classifier", "head", "pre_classifier")) for name in changed)
    assert len(changed) > 4
    assert not any("embeddings." in name for name in changed)
    assert run.scores()["cost"]["trainable_parameters"] < 0.5 * run.scores()["cost"]["parameters"]


def test_an_adapters_run_goes_on_after_a_kill(checkpoints, tmp_path, monkeypatch):
    from finetune.training import loop

    whole = train(recipe_of(tmp_path / "whole", checkpoints["bert"], tuning="lora", training={"save_steps": 2}))
    recipe = recipe_of(tmp_path / "broken", checkpoints["bert"], tuning="lora", training={"save_steps": 2})
    real, calls = loop.train_step, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise RuntimeError("killed")
        return real(*arguments)

    monkeypatch.setattr(loop, "train_step", dies)
    with pytest.raises(RuntimeError, match="killed"):
        train(recipe)
    monkeypatch.undo()
    run = train(recipe, resume=True)
    for directory, file in (("adapter_directory", "adapter_model"), ("model_directory", "model")):
        one, other = (load_file(getattr(r, directory) / f"{file}.safetensors") for r in (whole, run))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("architecture", "pooling"), [("bert", "mean"), ("distilbert", "max")])
def test_pooled_features_have_no_dropout(checkpoints, architecture, pooling, tmp_path, monkeypatch):
    options = {"tuning": "frozen", "pooling": pooling, "dropout": 0.4}
    cached = train(recipe_of(tmp_path / "cached", checkpoints[architecture], **options))
    monkeypatch.setattr(sys.modules["finetune.training.train"], "cut_frozen", lambda *arguments: None)
    plain = train(recipe_of(tmp_path / "plain", checkpoints[architecture], **options))
    weights, others = (load_file(run.model_directory / "model.safetensors") for run in (cached, plain))
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], atol=2e-5, rtol=1e-4)
    config = json.loads((cached.model_directory / "config.json").read_text(encoding="utf-8"))
    assert str(checkpoints[architecture]) not in json.dumps(config)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_the_same_layers_begin_anew_whatever_the_head_sees(checkpoints, architecture, pooling):
    before, _ = build(checkpoints[architecture])
    after, _ = build(checkpoints[architecture], reinitialized_layers=1, pooling=pooling)
    weights = dict(before.base_model.named_parameters())
    changed = {
        name
        for name, value in after.base_model.named_parameters()
        if name in weights and "pooler" not in name and not torch.equal(value, weights[name])
    }
    assert len(changed) >= 6
    assert all(".1." in name for name in changed)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_norms_begin_anew_too(checkpoints, pooling):
    model, _ = build(checkpoints["bert"], reinitialized_layers=1, pooling=pooling)
    norms = [
        value for name, value in model.named_parameters() if ".layer.1." in name and name.endswith("LayerNorm.weight")
    ]
    assert len(norms) == 2
    assert all(torch.equal(value, torch.ones_like(value)) for value in norms)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "albert", "modernbert"])
def test_a_head_on_features_learns_what_it_learns_on_texts(checkpoints, architecture, tmp_path, monkeypatch):
    recipe = recipe_of(tmp_path / "cached", checkpoints[architecture], tuning="frozen")
    reads = []
    real = AutoModelForSequenceClassification.from_pretrained

    def counted(*arguments, **options):
        model, loading = real(*arguments, **options)
        getattr(model, model.base_model_prefix).register_forward_hook(
            lambda module, inputs, output: reads.append(len(output.last_hidden_state))
        )
        return model, loading

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", counted)
    cached = train(recipe)
    of_cached = sum(reads)
    reads.clear()
    # The module, whose name in the package is the function's.
    monkeypatch.setattr(sys.modules["finetune.training.train"], "cut_frozen", lambda *arguments: None)
    plain = train(recipe_of(tmp_path / "plain", checkpoints[architecture], tuning="frozen"))
    weights, others = (load_file(run.model_directory / "model.safetensors") for run in (cached, plain))
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], atol=2e-5, rtol=1e-4)
    if architecture == "albert":
        # Its pooler is two modules, which no stand-in can put back together.
        return
    # Once to try (4 rows), once for training and validation; at the end validation, test and the probe.
    assert of_cached < 0.75 * sum(reads)


def test_a_head_that_reads_all_states_reads_all_texts_in_each_epoch(checkpoints, tmp_path):
    from finetune.training import environment

    recipe = recipe_of(tmp_path / "run", checkpoints["bert"], tuning="frozen", pooling="attention")
    model, tokenizer = build(checkpoints["bert"], tuning="frozen", pooling="attention")
    accelerator = environment.start_accelerator(environment.resolve(recipe), tmp_path)
    assert cut_frozen(model, recipe, None, tokenizer, accelerator) is None
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.partition(".")[0] for name in trainable} == {"attention_pooling", "classifier"}


def test_what_is_frozen_has_no_dropout(checkpoints):
    model, tokenizer = build(checkpoints["bert"], tuning="frozen", dropout=0.5)
    model.train()
    still_frozen_parts(model)
    batch = batch_of(tokenizer, ["정말 재미있다"])
    states = [model.bert(**batch).last_hidden_state for _ in range(2)]
    assert torch.equal(*states)
    assert not torch.equal(model(**batch).logits, model(**batch).logits)
    whole, _ = build(checkpoints["bert"], dropout=0.5)
    whole.train()
    still_frozen_parts(whole)
    assert not torch.equal(*[whole.bert(**batch).last_hidden_state for _ in range(2)])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"trained_layers": 1}, "trained_layers is for tuning last_layers"),
        ({"tuning": "frozen", "reinitialized_layers": 1}, "have to be trained"),
        ({"tuning": "last_layers", "trained_layers": 1, "reinitialized_layers": 2}, "have to be trained"),
        ({"lora": {"rank": 2}}, "lora is for tuning lora"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, values, reason):
    tree = small_recipe(tmp_path, "encoder").model_dump(mode="json")
    model = {"family": "encoder", "model_name_or_path": "klue/bert-base", **values}
    with pytest.raises(UserError, match=reason):
        parse_recipe({**tree, "model": model})


def test_pooled_runs_are_used_like_any(checkpoints, tmp_path, capsys):
    run = train(recipe_of(tmp_path / "run", checkpoints["bert"], pooling="attention"))
    assert main(["predict", str(run.path), "정말 재미있다"]) == 0
    assert "positive" in capsys.readouterr().out
    assert main(["evaluate", str(run.path), "--split", "validation"]) == 0
