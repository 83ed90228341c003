"""Rows for encoder-decoders: what is read, what is learnt, how much text it stands for, and whose tokens are shown."""

import datasets
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from finetune.errors import UserError
from finetune.text.causal import SIZES
from finetune.text.pairs import ScheduledSampler, encode_pairs, for_pairs
from finetune.text.vocabulary import train_tokenizer

ROWS = {"id": ["a", "b", "c"], "prompt": ["가나", "나 다", ""], "text": ["다라 마", "마" * 40, "힣가"]}


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["가나다라마 바사"] * 3
    return for_pairs(
        train_tokenizer(
            texts,
            unit="character",
            vocabulary_size=50,
            min_frequency=1,
            lowercase=False,
            max_length=64,
            begin_token=False,
        )
    )


def encoded(tokenizer, max_length=64):
    return encode_pairs(datasets.Dataset.from_dict(ROWS), tokenizer, max_length, start=tokenizer.bos_token_id)


def test_the_decoder_is_shown_the_token_before(tokenizer):
    rows = encoded(tokenizer)
    assert rows["id"] == ROWS["id"]
    assert rows["row"] == [0, 1, 2]
    for prompt, text, row in zip(ROWS["prompt"], ROWS["text"], rows, strict=True):
        assert row["label"] == tokenizer(text)["input_ids"]
        assert row["label"][-1] == tokenizer.eos_token_id
        assert row["input_ids"] == tokenizer(prompt)["input_ids"]
        assert row["decoder_input_ids"] == [tokenizer.bos_token_id, *row["label"][:-1]]
        assert row["length"] == len(row["input_ids"]) + len(row["label"])


def test_sizes_are_of_the_text_that_is_learnt(tokenizer):
    rows = encoded(tokenizer)
    sizes = [{name: row[name] for name in SIZES} for row in rows]
    assert sizes[0] == {"tokens": len(rows[0]["label"]), "bytes": 10, "characters": 4, "unknown_bytes": 0}
    assert sizes[2]["unknown_bytes"] == 3  # one letter that the vocabulary lacks
    cut = encoded(tokenizer, max_length=8)
    assert [len(row["label"]) for row in cut] == [6, 8, 4]
    assert cut[1]["label"][-1] == tokenizer.eos_token_id
    assert cut[1]["characters"] == 6  # beside the mark of a word's beginning and the end token
    assert cut[1]["bytes"] == 18


def test_a_tokenizer_without_an_end_is_refused(tokenizer):
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="[UNK]")
    plain.backend_tokenizer.post_processor = None
    with pytest.raises(UserError, match="does not end texts in an end token"):
        for_pairs(plain)


def test_own_tokens_grow_evenly_from_none(tokenizer):
    sampler = ScheduledSampler(teacher_forcing=0.4, epochs=4, seed=1)
    assert [sampler.share(epoch) for epoch in range(4)] == pytest.approx([0, 0.2, 0.4, 0.6])
    columns = {"label": [[5] * 2000, [5] * 30]}
    for epoch in range(4):
        drawn = sampler.encode(columns, [7, 8], epoch)["own_tokens"]
        assert [len(row) for row in drawn] == [2000, 30]
        assert np.mean(drawn[0]) == pytest.approx(sampler.share(epoch), abs=0.04)
    again = sampler.encode({"label": [[5] * 30]}, [8], 3)["own_tokens"]
    assert again[0].tolist() == drawn[1].tolist()  # by seed, epoch and row, whatever stands beside it
    assert ScheduledSampler(0.4, 1, 1).share(0) == 0
