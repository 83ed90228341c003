"""Subword sampling: SentencePiece's distribution, each draw a function of seed, epoch and row alone."""

import json
import math
import subprocess
import sys
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from kobert_standin import korean_texts, standin_reference, write_own_layout, write_split_layout
from reviews import small_recipe
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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


def segmentations(text, scores):
    """Every way to cut a text into pieces."""
    if not text:
        yield ()
    for end in range(1, len(text) + 1):
        if text[:end] in scores:
            yield from ((text[:end], *more) for more in segmentations(text[end:], scores))


def test_ours_and_sentencepieces_frequencies_are_the_same_probabilities(tokenizer):
    """Against every segmentation of a short text, enumerated with its probability to the power of alpha."""
    alpha, text, count = 0.4, "ㅋㅋㅋㅋㅋ....", 4000
    processor = standin_reference().processor
    scores = {processor.id_to_piece(i): processor.get_score(i) for i in range(processor.get_piece_size())}
    normal = f"▁{5 * chr(0x110F)}...."
    weights = {s: math.exp(alpha * sum(scores[p] for p in s)) for s in segmentations(normal, scores)}
    probabilities = {s: weight / sum(weights.values()) for s, weight in weights.items()}
    assert len(probabilities) > 50
    # The mean distance in total variation of `count` draws from their own distribution, twice: far in the tail.
    limit = sum(math.sqrt(p * (1 - p) / count) for p in probabilities.values())
    ours = [tokenizer.convert_ids_to_tokens(ids)[1:-1] for ids in draw(tokenizer, [text] * count, alpha=alpha)]
    theirs = [processor.sample_encode_as_pieces(text, -1, alpha) for _ in range(count)]
    for draws in (ours, theirs):
        counts = Counter(map(tuple, draws))
        assert set(counts) <= set(probabilities)
        assert sum(abs(counts[s] / count - p) for s, p in probabilities.items()) / 2 < limit
    # The same test notices another alpha.
    wrong = Counter(tuple(ids) for ids in draw(tokenizer, [text] * count, alpha=0.6))
    by_ids = {(2, *tokenizer.convert_tokens_to_ids(s), 3): p for s, p in probabilities.items()}
    assert sum(abs(wrong[s] / count - p) for s, p in by_ids.items()) / 2 > limit


def test_whole_reviews_have_as_many_pieces_as_sentencepiece_draws(tokenizer):
    """With unknown characters, digits and emoji in them; the mean over draws of the number of pieces, per review."""
    reference, texts, count = standin_reference(), [*korean_texts()[:40], "뷁쀍 좋다😀😀 100%"], 200
    ours = np.array([[len(ids) - 2 for ids in draw(tokenizer, [text] * count, max_length=400)] for text in texts])
    theirs = np.array(
        [
            [len(reference.encode(text, enable_sampling=True, alpha=0.2, nbest_size=-1)) for _ in range(count)]
            for text in texts
        ]
    )
    deviation = np.sqrt((ours.var(axis=1) + theirs.var(axis=1)) / count) + 1e-9
    z = (ours.mean(axis=1) - theirs.mean(axis=1)) / deviation
    assert abs(z).max() < 5.5  # SentencePiece draws otherwise in every process
    assert abs(z.mean()) * math.sqrt(len(texts)) < 5.5


def test_a_draw_is_the_same_in_another_process(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    code = (
        "import json, sys; from finetune.text import SubwordSampler, load_tokenizer\n"
        "sampler = SubwordSampler(load_tokenizer(sys.argv[1]), 0.2, 1, 400)\n"
        "texts = json.loads(sys.stdin.read())\n"
        "print(json.dumps(sampler.encode({'text': texts}, list(range(len(texts))), 3)['input_ids']))"
    )
    texts = korean_texts()[:50]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], input=json.dumps(texts), capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == draw(tokenizer, texts, epoch=3, max_length=400)


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
        workers=workers, draws=[sampler],
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


def unigram(pre_tokenizer, **options):
    pieces = [
        ("<unk>", 0.0),
        *((piece, -1.0 - len(piece)) for piece in ("h", "e", "l", "o", "w", "r", "d", "hell", "ow")),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, **{"unk_id": 0, "byte_fallback": False, **options}))
    tokenizer.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>")


def test_no_piece_crosses_the_border_of_a_word():
    tokenizer = unigram(pre_tokenizers.Whitespace())
    for ids in draw(tokenizer, ["hello world"] * 200, alpha=0.1):
        assert "ow" not in tokenizer.convert_ids_to_tokens(ids)


def test_added_and_special_tokens_in_a_text_are_what_they_are_elsewhere(tmp_path):
    tokenizer = load_tokenizer(str(write_own_layout(tmp_path / "own")))
    tokenizer.add_tokens(["정말루"])
    texts = ["정말루 재미있다", "재미 [SEP] 있다", "그냥 재미있는 영화였다 ㅋㅋㅋ"]
    plain = tokenizer(texts)["input_ids"]
    drawn = [draw(tokenizer, texts, epoch=epoch) for epoch in range(20)]
    assert all(ids[:2] == plain[:2] for ids in drawn)
    assert any(ids[2] != plain[2] for ids in drawn)


def test_byte_fallback_is_refused():
    for options in ({"byte_fallback": True}, {"unk_id": None}):
        with pytest.raises(UserError, match="without byte fallback"):
            SubwordSampler(unigram(pre_tokenizers.Whitespace(), **options), 0.1, 0, 8)


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
