"""Subword sampling: SentencePiece's own draws, each a function of seed, epoch and row alone."""

import math
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from kobert_standin import korean_texts, standin_reference, write_own_layout, write_split_layout
from reviews import small_recipe
from sentencepiece import set_random_generator_seed

from finetune import tasks
from finetune.errors import UserError
from finetune.text import SubwordSampler, load_tokenizer, train_tokenizer
from finetune.training import train
from finetune.training.batches import EpochBatches


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(str(write_own_layout(tmp_path_factory.mktemp("standin") / "own")))


def draw(tokenizer, texts, *, alpha=0.2, seed=1, epoch=0, rows=None, max_length=64):
    sampler = SubwordSampler(tokenizer, alpha, seed, max_length)
    rows = range(len(texts)) if rows is None else rows
    return sampler.encode({"text": texts}, list(rows), epoch)["input_ids"]


def test_the_draws_are_those_of_sentencepiece_on_the_raw_text(tokenizer):
    reference, texts = standin_reference(), korean_texts()
    found = draw(tokenizer, texts, alpha=0.3, seed=7, epoch=2, max_length=400)
    for row, (text, ids) in enumerate(zip(texts, found, strict=True)):
        set_random_generator_seed(int(np.random.SeedSequence([7, 2, row]).generate_state(1)[0]))
        assert ids == [2, *reference.encode(text, enable_sampling=True, alpha=0.3, nbest_size=-1), 3]


def test_their_frequencies_are_the_probabilities_of_the_model(tokenizer):
    """Against every segmentation of a short text, enumerated with its probability to the power of alpha."""
    alpha, text = 0.4, "ㅋㅋㅋㅋㅋ...."
    pieces = standin_reference().processor
    scores = {pieces.id_to_piece(i): pieces.get_score(i) for i in range(pieces.get_piece_size())}

    def segmentations(rest):
        if not rest:
            yield ()
        for end in range(1, len(rest) + 1):
            if rest[:end] in scores:
                yield from ((rest[:end], *more) for more in segmentations(rest[end:]))

    weights = {s: math.exp(alpha * sum(scores[p] for p in s)) for s in segmentations(f"▁{5 * chr(0x110F)}....")}
    assert len(weights) > 10
    draws = draw(tokenizer, [text] * 4000, alpha=alpha)
    counts = Counter(tuple(tokenizer.convert_ids_to_tokens(ids)[1:-1]) for ids in draws)
    total = sum(weights.values())
    distance = sum(abs(counts[s] / 4000 - weight / total) for s, weight in weights.items()) / 2
    assert set(counts) <= set(weights)
    # Of a sample of 4,000 the distance in total variation is below half the sum of the deviations, nearly always.
    assert distance < 1.5 * sum(math.sqrt(w / total * (1 - w / total) / 4000) for w in weights.values()) / 2


def test_a_draw_depends_on_seed_epoch_and_row_alone(tokenizer):
    texts = korean_texts()[:60]
    first = draw(tokenizer, texts, max_length=400)
    assert draw(tokenizer, texts, max_length=400) == first
    assert draw(tokenizer, texts[::-1], rows=range(59, -1, -1), max_length=400) == first[::-1]
    assert draw(tokenizer, texts, epoch=1, max_length=400) != first
    assert draw(tokenizer, texts, seed=2, max_length=400) != first
    plain = tokenizer(texts)["input_ids"]
    assert sum(a != b for a, b in zip(first, plain, strict=True)) > 40
    assert [tokenizer.decode(a, skip_special_tokens=True) for a in first] == [
        tokenizer.decode(b, skip_special_tokens=True) for b in plain
    ]


def test_pairs_and_truncation_are_those_of_the_tokenizer(tokenizer):
    sampler = SubwordSampler(tokenizer, 0.2, 1, 12)
    columns = {"text": ["아주 긴 첫째 문장입니다", ""], "text_pair": ["둘째", "혼자"], "label": [1, 0]}
    encoded = sampler.encode(columns, [0, 1], 0)
    assert encoded["label"] == [1, 0]
    assert len(encoded["input_ids"][0]) == 12
    assert encoded["input_ids"][0][0] == 2
    assert encoded["input_ids"][0].count(3) == 2
    second = encoded["input_ids"][0].index(3) + 1
    assert encoded["token_type_ids"][0] == [0] * second + [1] * (12 - second)
    assert encoded["input_ids"][1][:2] == [2, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_differ_between_epochs_and_not_with_workers(tokenizer, workers):
    texts = korean_texts()[:40]
    rows = datasets.Dataset.from_dict({"id": [str(i) for i in range(40)], "text": texts, "label": [0, 1] * 20})
    encoded = tasks.encode(rows, tokenizer, 32, keep_text=True)
    sampler = SubwordSampler(tokenizer, 0.2, 5, 32)
    batches = EpochBatches(
        encoded, tokenizer, batch_size=8, micro_batch_size=4, pool_batches=2, seed=5, rank=0, world_size=1,
        workers=workers, sampler=sampler,
    )  # fmt: skip

    def epoch(number):
        found = {}
        for step in batches.steps(number):
            ids = [ids[mask.bool()].tolist() for batch in step.micro_batches
                   for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]  # fmt: skip
            found |= dict(zip(step.rows.tolist(), ids, strict=True))
        return found

    for number in (0, 3):
        found = epoch(number)
        expected = draw(tokenizer, texts, seed=5, epoch=number, max_length=32)
        assert [found[row] for row in range(40)] == expected


def test_a_tokenizer_that_is_no_unigram_is_refused_before_anything_is_written(tmp_path):
    recipe = small_recipe(tmp_path, text={"subword_sampling_alpha": 0.2})
    with pytest.raises(UserError, match=r"text\.subword_sampling_alpha needs a Unigram tokenizer.*this one is BPE"):
        train(recipe)
    assert not (tmp_path / "runs" / "small").exists()
    with pytest.raises(UserError, match="WordLevel"):
        SubwordSampler(
            train_tokenizer(["가 나"], unit="word", vocabulary_size=20, min_frequency=1, lowercase=False, max_length=8,
                            begin_token=False), 0.1, 0, 8,
        )  # fmt: skip


@pytest.mark.parametrize("model", ["encoder", "lstm"])
def test_a_recipe_trains_with_it_and_scores_without(tmp_path, model):
    layout = write_split_layout(tmp_path / "split")
    text = {"tokenizer_name_or_path": str(layout), "max_length": 32}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sampled = train(small_recipe(tmp_path / "a", model, text={**text, "subword_sampling_alpha": 0.2}))
    plain = train(small_recipe(tmp_path / "b", model, text=text))
    losses = [[record["loss"] for record in run.log() if "loss" in record] for run in (sampled, plain)]
    assert len(losses[0]) == len(losses[1])
    assert losses[0] != losses[1]
    assert torch.isfinite(torch.tensor(losses[0])).all()
