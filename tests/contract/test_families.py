"""What every model promises: it learns eight rows by heart, survives saving, and padding changes nothing."""

import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES
from reviews import MODELS
from training_setup import prepare, run_loop
from transformers import AutoTokenizer, pipeline

from finetune import tasks
from finetune.data.splits import column, label_array
from finetune.models import load_model
from finetune.predict import Classifier
from finetune.text import load_tokenizer, save_tokenizer

ROUNDING = 1e-3
"""Float32 in another order of sums, after sixty steps at a large learning rate; padding that counted shows more."""


@pytest.fixture(scope="module", params=[*MODELS, *ARCHITECTURES])
def trained(request, tmp_path_factory):
    """(setup whose training rows are eight, the model trained on them, the directory it was saved to)."""
    directory = tmp_path_factory.mktemp(request.param)
    setup = prepare(
        directory, request.param, rows=80, dropout=0.0, num_train_epochs=60, learning_rate=1e-2, warmup_ratio=0.0,
        lr_scheduler_type="constant", metric_for_best_model="loss", eval_steps=60,
    )  # fmt: skip
    setup.encoded["train"] = setup.encoded["train"].select(range(8))
    setup.encoded["validation"] = setup.encoded["train"]
    model = setup.fresh_model()
    records = run_loop(setup, model)
    assert len(records) == 60
    model.save_pretrained(directory / "model")
    save_tokenizer(setup.tokenizer, directory / "model")
    return setup, model.eval(), directory / "model"


def test_it_learns_eight_rows_by_heart(trained):
    setup, model, _ = trained
    rows = setup.splits.train.select(range(8))
    probabilities = Classifier(model, setup.tokenizer, 32).classify(column(rows, "text"))
    assert (probabilities.argmax(axis=1) == label_array(rows)).all()
    assert probabilities.max(axis=1).min() > 0.8


def test_saved_and_loaded_it_predicts_the_same(trained):
    setup, model, directory = trained
    texts = column(setup.splits.validation, "text")
    loaded = Classifier(load_model(directory), load_tokenizer(str(directory)), 32)
    assert loaded.labels == ["negative", "positive"]
    if loaded.model.config._attn_implementation != model.config._attn_implementation:
        # Transformers loads with its own choice of attention code, which rounds otherwise.
        loaded.model.set_attn_implementation(model.config._attn_implementation)
    assert np.array_equal(loaded.classify(texts), Classifier(model, setup.tokenizer, 32).classify(texts))


def test_a_batch_equals_single_rows(trained):
    setup, model, _ = trained
    texts = [*column(setup.splits.test, "text"), "a", ""]
    together = Classifier(model, setup.tokenizer, 32).classify(texts)
    alone = np.concatenate([Classifier(model, setup.tokenizer, 32).classify([text]) for text in texts])
    assert np.abs(together - alone).max() < ROUNDING


def test_more_padding_changes_nothing(trained):
    setup, model, _ = trained
    batch = tasks.collate(setup.encoded["train"][:4], setup.tokenizer)
    wider = {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 5), value=setup.tokenizer.pad_token_id),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 5)),
    }
    # What stands in the padding must not matter either.
    rubbish = {**wider, "input_ids": wider["input_ids"].masked_fill(wider["attention_mask"] == 0, 7)}
    with torch.no_grad():
        expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        for padded in (wider, rubbish):
            assert (model(**padded).logits - expected).abs().max() < ROUNDING


def test_it_runs_through_the_pipeline(trained):
    setup, model, directory = trained
    texts = column(setup.splits.test, "text")[:6]
    expected = Classifier(model, setup.tokenizer, 32).classify(texts)
    classify = pipeline("text-classification", model=str(directory), tokenizer=str(directory), device="cpu")
    answers = classify(texts, truncation=True, max_length=32)
    names = ["negative", "positive"]
    for answer, probabilities in zip(answers, expected, strict=True):
        assert answer["label"] == names[probabilities.argmax()]
        assert answer["score"] == pytest.approx(probabilities.max(), abs=ROUNDING)


def test_pairs_are_encoded_after_loading_as_in_training(trained):
    """Also by those who load the directory with nothing of ours: a token type too many is an index error, or worse."""
    setup, model, directory = trained
    loaded = AutoTokenizer.from_pretrained(directory)
    pair = ("정말 재미있다", "너무 지루하다")
    assert dict(loaded(*pair)) == dict(setup.tokenizer(*pair))
    classify = pipeline("text-classification", model=str(directory), tokenizer=str(directory), device="cpu")
    answer = classify({"text": pair[0], "text_pair": pair[1]})
    encoded = {name: torch.tensor([ids]) for name, ids in setup.tokenizer(*pair).items()}
    with torch.no_grad():
        expected = model(**encoded).logits.softmax(-1).max().item()
    assert answer["score"] == pytest.approx(expected, abs=ROUNDING)


def test_it_is_safetensors_with_label_names(trained):
    _, _, directory = trained
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in directory.iterdir()} == names
    assert "LABEL_0" not in (directory / "config.json").read_text()
    # A class of transformers 5 alone would leave out those who have version 4.
    assert "TokenizersBackend" not in (directory / "tokenizer_config.json").read_text()
