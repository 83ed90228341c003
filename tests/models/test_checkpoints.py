"""Checkpoints of the BERT family: what is theirs is kept, what is drawn anew is the head alone, and what cannot fit is
refused in one line.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from checkpoints import ARCHITECTURES, write_checkpoint
from conftest import _CLOSED_NETWORK
from kobert_standin import CONFIG, vocabulary, write_own_layout
from reviews import review_rows, small_recipe
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, pipeline

from finetune import tasks
from finetune.cli import main
from finetune.errors import UserError
from finetune.models import build_model, load_model, match_inputs, max_positions, start_at
from finetune.recipe import EncoderModel
from finetune.text import load_tokenizer
from finetune.training import train

LABELS = ["부정", "긍정"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Directories of the tiny random checkpoints, by architecture."""
    directory = tmp_path_factory.mktemp("checkpoints")
    return {name: write_checkpoint(directory / name, name) for name in ARCHITECTURES}


def build(directory, labels=LABELS, max_length=32, tokenizer=None, **options):
    recipe = EncoderModel(model_name_or_path=str(directory), **options)
    tokenizer = tokenizer or load_tokenizer(str(directory))
    return build_model(recipe, "classify", labels, tokenizer, max_length, attention="sdpa"), tokenizer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_encoder_is_the_checkpoints_and_the_dropout_the_recipes(checkpoints, architecture):
    model, tokenizer = build(checkpoints[architecture], dropout=0.0)
    body = AutoModel.from_pretrained(checkpoints[architecture], dtype=torch.float32).state_dict()
    ours = model.base_model.state_dict()
    shared = [name for name in ours if "pooler" not in name]
    assert len(shared) >= 14
    assert all(torch.equal(ours[name], body[name]) for name in shared)
    tokenizer = match_inputs(tokenizer, model)
    encoded = tokenizer("정말 재미있다", "너무 지루하다")
    batch = tasks.collate({name: [ids] for name, ids in encoded.items() if name != "attention_mask"}, tokenizer)
    model.train()
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    noisy, _ = build(checkpoints[architecture], dropout=0.5)
    noisy.train()
    assert not torch.equal(noisy(**batch).logits, noisy(**batch).logits)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_longest_text_that_is_allowed_runs_and_a_longer_one_is_refused(checkpoints, architecture):
    model, tokenizer = build(checkpoints[architecture])
    longest = max_positions(model)
    assert longest == (62 if "roberta" in architecture else 64)
    model, tokenizer = build(checkpoints[architecture], max_length=longest)
    encoded = tokenizer("아주 재미있다 " * 60, truncation=True, max_length=longest, return_tensors="pt")
    assert encoded["input_ids"].shape[1] == longest
    model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
    with pytest.raises(UserError, match=rf"text\.max_length {longest + 1} is more than the {longest} positions"):
        build(checkpoints[architecture], max_length=longest + 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_label_names_survive_a_run_from_a_recipe(checkpoints, architecture, tmp_path):
    recipe = small_recipe(
        tmp_path,
        {"family": "encoder", "model_name_or_path": str(checkpoints[architecture])},
        data={"train_file": str(tmp_path / "korean.csv"), "labels": {"negative": "부정", "positive": "긍정"}},
        training={"max_steps": 3},
    )
    (tmp_path / "korean.csv").write_text(
        "text,label\n" + "".join(f"{text},{label}\n" for text, label in review_rows(120)), encoding="utf-8"
    )
    run = train(recipe)
    text = (run.model_directory / "config.json").read_text(encoding="utf-8")
    assert "LABEL_" not in text
    assert json.loads(text)["id2label"] == {"0": "부정", "1": "긍정"}
    assert json.loads(text)["problem_type"] == "single_label_classification"
    directory = str(run.model_directory)
    answers = pipeline("text-classification", model=directory, device="cpu", top_k=None)(["정말 재미있다"])
    assert {answer["label"] for answer in answers[0]} == {"부정", "긍정"}
    # Trained once more, on the same labels: the head is kept.
    again, _ = build(directory)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), load_model(directory).parameters(), strict=True))


def test_labels_in_another_order_are_refused_with_both_orders(checkpoints, tmp_path, capsys):
    model, tokenizer = build(checkpoints["bert"], labels=["Positive", "Negative"])
    model.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")
    data = tmp_path / "reviews.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in review_rows(60)), encoding="utf-8")
    command = [
        "train", "quickstart-encoder", "--data", f"{{train_file: {data}}}", "--output_dir", str(tmp_path / "runs"),
        "--training.max_steps", "2", "--text.max_length", "32",
        "--model", f"{{family: encoder, model_name_or_path: {tmp_path / 'trained'}}}",
    ]  # fmt: skip
    assert main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "has the labels 0 Positive, 1 Negative, the data 0 negative, 1 positive" in error
    assert "give data.labels in the model's order" in error
    assert not (tmp_path / "runs" / "quickstart-encoder").exists()
    assert main([*command, "--data.labels", "{positive: positive, negative: negative}"]) == 0


def test_a_checkpoint_that_lacks_tensors_of_the_encoder_is_refused(checkpoints, tmp_path):
    source = checkpoints["bert"]
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(source / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if "layer.1" not in name}, broken / "model.safetensors",
        metadata={"format": "pt"},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"16 tensors of the model are missing .*bert\.encoder\.layer\.1\.") as caught:
        build(broken)
    assert "would start from random values" in str(caught.value)
    config = json.loads((source / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "intermediate_size": 32}))
    (broken / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="tensors of the model are missing there or have another shape"):
        build(broken)


def test_damaged_weights_and_odd_label_names_end_in_one_line(checkpoints, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoints["bert"], damaged)
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model '.*damaged'"):
        build(damaged)
    old = tmp_path / "old"
    shutil.copytree(checkpoints["kobert"], old)
    (old / "pytorch_model.bin").write_bytes((old / "pytorch_model.bin").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model '.*old'"):
        build(old)
    odd = tmp_path / "odd"
    shutil.copytree(checkpoints["bert"], odd)
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps({**config, "id2label": {"1": "a", "2": "b"}, "label2id": {}}))
    assert build(odd)[0].config.id2label == dict(enumerate(LABELS))


def test_a_head_that_was_trained_for_ratings_keeps_its_bias(checkpoints):
    model, _ = build(checkpoints["bert"], labels=[])
    start_at(model, 7.0)
    assert model.classifier.bias.item() == 7.0
    start_at(model, 3.0)
    assert model.classifier.bias.item() == 7.0


def test_a_tokenizer_of_another_model_is_refused(checkpoints, tmp_path):
    with pytest.raises(UserError, match=r"the tokenizer has 1,202 tokens, .* embeds 400; they do not belong together"):
        build(checkpoints["bert"], tokenizer=load_tokenizer(str(checkpoints["kobert"])))
    with pytest.raises(UserError, match=r"the tokenizer has 400 tokens, .* embeds 1,202; they do not belong together"):
        build(checkpoints["kobert"], tokenizer=load_tokenizer(str(checkpoints["bert"])))
    with pytest.raises(UserError, match=r"the tokenizer pads with id 0, .* with 1; they do not belong together"):
        build(checkpoints["klue-roberta"], tokenizer=load_tokenizer(str(checkpoints["bert"])))


@pytest.mark.parametrize("form", ["pytorch_model.bin", "model.safetensors"])
def test_kobert_in_its_own_size_loads_trains_and_saves(tmp_path, form):
    """The configuration of skt/kobert-base-v1, 92 million random weights, in the old form and in safetensors."""
    tokens = [*vocabulary(), *(f"{number}번째" for number in range(8002 - len(vocabulary())))]
    directory = write_own_layout(tmp_path / "kobert", tokens=tokens)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    source = BertModel(BertConfig.from_pretrained(directory))
    assert sum(parameter.numel() for parameter in source.parameters()) == 92_186_880
    if form == "pytorch_model.bin":
        torch.save(source.state_dict(), directory / form)
    else:
        source.save_pretrained(directory)
    model, tokenizer = build(directory, max_length=512)
    assert torch.equal(model.bert.encoder.layer[11].output.dense.weight, source.encoder.layer[11].output.dense.weight)
    encoded = tokenizer(["정말 재미있다", "너무 지루하다"], padding=True, return_tensors="pt")
    labels = torch.tensor([1, 0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-6, fused=True)
    losses = []
    model.eval()  # no dropout, so that the loss must fall
    for _ in range(3):
        loss = tasks.loss_sum(model, {**encoded, "labels": labels})
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded, saved_tokenizer = load_model(tmp_path / "saved"), AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved_tokenizer("정말 재미있다")["input_ids"] == tokenizer("정말 재미있다")["input_ids"]
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(**encoded).logits, model(**encoded).logits, atol=1e-5)


@pytest.mark.network
def test_the_official_numbers_of_skt_kobert_base_v1():
    """The last hidden state that KoBERT's authors give for ids 31 51 99 (README of SKTBrain/KoBERT)."""
    code = (
        "import torch; from transformers import AutoModel; from finetune.text import load_tokenizer\n"
        "model = AutoModel.from_pretrained('skt/kobert-base-v1', dtype=torch.float32).eval()\n"
        "ids = torch.tensor([[31, 51, 99]])\n"
        "state = model(ids, torch.ones_like(ids), torch.tensor([[0, 0, 1]])).last_hidden_state[0, 0]\n"
        "print(*state[:3].tolist(), *state[-3:].tolist())\n"
        "print(*load_tokenizer('skt/kobert-base-v1')('한국어 모델을 공유합니다.')['input_ids'])"
    )
    closed = {"HF_HUB_OFFLINE", "HF_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in closed}
    paths = environment.pop("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path != str(_CLOSED_NETWORK))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True, env=environment
    )
    numbers, ids = done.stdout.strip().splitlines()[-2:]
    expected = [-0.2461, 0.2428, 0.2590, -0.4861, -0.0731, 0.0756]
    assert [float(number) for number in numbers.split()] == pytest.approx(expected, abs=1e-3)
    assert ids == "2 4958 6855 2046 7088 1050 7843 54 3"
