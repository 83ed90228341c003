"""Encoders from a checkpoint: float32, the data's label names, a fresh head, and refusals in one line."""

import json

import pytest
import torch
from reviews import review_rows, small_recipe
from transformers import BertConfig, BertForSequenceClassification

from finetune.errors import UserError
from finetune.models import build_model
from finetune.recipe import EncoderModel
from finetune.text import load_tokenizer, train_tokenizer
from finetune.training import train

LABELS = ["부정", "중립", "긍정"]


@pytest.fixture
def checkpoint(tmp_path):
    """A small BERT stored in half precision, with a head of five labels, and its tokenizer."""
    tokenizer = train_tokenizer(
        [text for text, _ in review_rows(100)],
        unit="subword",
        vocabulary_size=200,
        min_frequency=1,
        lowercase=False,
        max_length=40,
        begin_token=True,
    )
    config = BertConfig(
        vocab_size=200,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        num_labels=5,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).half().save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def build(checkpoint, max_length=32, **options):
    recipe = EncoderModel(model_name_or_path=str(checkpoint), **options)
    return build_model(recipe, "classify", LABELS, load_tokenizer(str(checkpoint)), max_length, attention="eager")


def test_it_trains_in_float32_under_the_names_of_the_data(checkpoint):
    model = build(checkpoint, dropout=0.25)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {name: i for i, name in enumerate(LABELS)}
    assert model.classifier.out_features == 3
    assert model.config.problem_type == "single_label_classification"
    assert {model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob} == {0.25}
    stored = BertForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32)
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, stored.bert.embeddings.word_embeddings.weight)


def test_what_does_not_fit_is_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"text\.max_length 41 is more than the 40 positions"):
        build(checkpoint, max_length=41)
    larger = train_tokenizer(
        [f"w{i}" for i in range(400)],
        unit="word",
        vocabulary_size=500,
        min_frequency=1,
        lowercase=False,
        max_length=32,
        begin_token=True,
    )
    with pytest.raises(UserError, match=r"the tokenizer has 405 tokens, .* embeds 200"):
        build_model(EncoderModel(model_name_or_path=str(checkpoint)), "classify", LABELS, larger, 32, attention="eager")
    with pytest.raises(UserError, match="nobody/none"):
        build_model(EncoderModel(model_name_or_path="nobody/none"), "classify", LABELS, larger, 32, attention="eager")


def test_a_checkpoint_is_fine_tuned_from_a_recipe(checkpoint, tmp_path):
    (tmp_path / "work").mkdir()
    model = {"family": "encoder", "model_name_or_path": str(checkpoint)}
    run = train(small_recipe(tmp_path / "work", model, rows=120, training={"num_train_epochs": 1}))
    config = json.loads((run.model_directory / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float32"
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert run.scores()["splits"]["test"]["times_scored"] == 1
