"""Noise in training texts: drawn from seed, epoch and row alone, for the asked share, and learnt through."""

import pytest
from reviews import review_rows, small_recipe
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from finetune import tasks
from finetune.data import load_splits
from finetune.errors import UserError
from finetune.recipe import NoiseName
from finetune.text import NoiseAugmenter, build_tokenizer
from finetune.text.noise import NOISES
from finetune.training import train
from finetune.training.batches import EpochBatches

TEXTS = [text for text, _ in review_rows(400)]


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    recipe = small_recipe(tmp_path_factory.mktemp("rows"), "lstm", rows=120, text={"noise": ["spaces_removed"]})
    splits = load_splits(recipe.data)
    return recipe, splits, build_tokenizer(recipe, splits)


def test_the_recipe_knows_every_noise():
    assert set(NoiseName.__args__) == set(NOISES)


def test_the_share_is_as_asked_and_the_draw_is_the_rows_own(setup):
    _, _, tokenizer = setup
    augmenter = NoiseAugmenter(tokenizer, ["jamo_typos", "laughter"], 0.4, seed=1, max_length=32, encodes=True)
    changed = [augmenter.noisy(text, row, 0) != text for row, text in enumerate(TEXTS)]
    assert 0.32 < sum(changed) / len(TEXTS) < 0.48
    assert changed != [augmenter.noisy(text, row, 1) != text for row, text in enumerate(TEXTS)]
    whole = augmenter.encode({"text": TEXTS[:20], "label": [0] * 20}, list(range(20)), 3)
    parts = [augmenter.encode({"text": [text], "label": [0]}, [row], 3) for row, text in enumerate(TEXTS[:20])]
    assert whole["input_ids"] == [part["input_ids"][0] for part in parts]
    assert "text" not in whole


def test_texts_become_the_tokenizers_tokens(setup):
    _, _, tokenizer = setup
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    augmenter = NoiseAugmenter(tokenizer, ["spaces_removed"], 1.0, seed=1, max_length=8, encodes=True)
    found = augmenter.encode({"text": TEXTS[:10]}, list(range(10)), 0)["input_ids"]
    noisy = [augmenter.noisy(text, row, 0) for row, text in enumerate(TEXTS[:10])]
    assert found == tokenizer(noisy, truncation=True, max_length=8)["input_ids"]
    before = NoiseAugmenter(tokenizer, ["spaces_removed"], 1.0, seed=1, max_length=8, encodes=False)
    assert before.encode({"text": TEXTS[:10]}, list(range(10)), 0)["text"] == noisy


def test_batches_hold_other_tokens_in_each_epoch(setup):
    _, splits, tokenizer = setup
    encoded = tasks.encode(splits.train, tokenizer, 32, keep_text=True)
    augmenter = NoiseAugmenter(tokenizer, ["spaces_removed"], 1.0, seed=1, max_length=32, encodes=True)
    batches = EpochBatches(
        encoded, tokenizer, batch_size=8, micro_batch_size=8, pool_batches=5, seed=0, rank=0, world_size=1, workers=0,
        draws=[augmenter],
    )  # fmt: skip
    of_epoch = [
        {int(row): tuple(ids[mask.bool()].tolist())
         for step in batches.steps(epoch)
         for row, ids, mask in zip(step.rows, step.micro_batches[0]["input_ids"],
                                   step.micro_batches[0]["attention_mask"], strict=True)}
        for epoch in (0, 1)
    ]  # fmt: skip
    assert of_epoch[0].keys() == of_epoch[1].keys()
    assert sum(of_epoch[0][row] != of_epoch[1][row] for row in of_epoch[0]) > len(of_epoch[0]) / 4


def test_a_run_with_noise_goes_on_to_the_same_end(tmp_path, monkeypatch):
    from finetune.training import loop

    options = {"text": {"noise": ["jamo_typos", "spaces_removed"], "noise_share": 0.5}}
    weights = []
    for name, dies in (("whole", None), ("broken", 7)):
        (tmp_path / name).mkdir()
        recipe = small_recipe(tmp_path / name, "lstm", rows=120, training={"save_steps": 3}, **options)
        real, calls = loop.train_step, []

        def step(*arguments, real=real, calls=calls, dies=dies):
            calls.append(1)
            if len(calls) == dies:
                raise RuntimeError("killed")
            return real(*arguments)

        monkeypatch.setattr(loop, "train_step", step)
        if dies:
            with pytest.raises(RuntimeError, match="killed"):
                train(recipe)
            monkeypatch.undo()
        run = train(recipe, resume=dies is not None)
        monkeypatch.undo()
        weights.append((run.model_directory / "model.safetensors").read_bytes())
        assert load_file(run.model_directory / "model.safetensors")
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": {"noise": ["rain"]}}, r"text\.noise"),
        ({"text": {"noise_share": 0.5}}, "noise_share needs text.noise"),
        ({"text": {"noise": ["typos"]}, "model": {"family": "tfidf"}}, "text.noise is for neural models"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        small_recipe(tmp_path, options.pop("model", "lstm"), **options)
