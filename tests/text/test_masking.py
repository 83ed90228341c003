"""Masks: a function of seed, epoch and row; BERT's shares; whole words whole; bytes as many as the text has."""

import numpy as np
import pytest
from checkpoints import ARCHITECTURES, write_checkpoint
from reviews import review_rows

from finetune.errors import UserError
from finetune.recipe import Masking
from finetune.text import Masker, bytes_of_tokens, load_tokenizer, train_tokenizer
from finetune.text.masking import IGNORED_LABEL

TEXTS = [text for text, _ in review_rows(400)]


def train(unit="unigram", **options):
    sizes = {"vocabulary_size": 400, "min_frequency": 1, "lowercase": False, "max_length": 64, "begin_token": True}
    return train_tokenizer(TEXTS, unit=unit, **{**sizes, **options})


TOKENIZER = train()
IDS = TOKENIZER(TEXTS)["input_ids"]


def mask(rate=0.3, whole_words=False, seed=1, epoch=0, rows=None, tokenizer=TOKENIZER, ids=IDS):
    masker = Masker(tokenizer, Masking(rate=rate, whole_words=whole_words), seed)
    rows = list(range(len(ids))) if rows is None else rows
    columns = masker.encode({"input_ids": [ids[row] for row in rows], "id": rows}, rows, epoch)
    assert columns["id"] == rows
    return columns["input_ids"], columns["label"]


def test_equal_seeds_epochs_and_rows_are_masked_alike_whatever_stands_beside_them():
    shown, labels = mask()
    alone, own_labels = mask(rows=[7])
    assert np.array_equal(alone[0], shown[7])
    assert np.array_equal(own_labels[0], labels[7])
    for other in ({"epoch": 1}, {"seed": 2}):
        assert any(not np.array_equal(a, b) for a, b in zip(labels, mask(**other)[1], strict=True))


def test_targets_are_what_stood_there_and_never_special_tokens():
    shown, labels = mask()
    for ids, row, targets in zip(IDS, shown, labels, strict=True):
        are_targets = targets != IGNORED_LABEL
        assert np.array_equal(targets[are_targets], np.array(ids)[are_targets])
        assert np.array_equal(row[~are_targets], np.array(ids)[~are_targets])
        assert not are_targets[[0, -1]].any()
        assert are_targets.any()


@pytest.mark.parametrize("whole_words", [False, True])
def test_the_shares_are_those_asked_for(whole_words):
    epochs = [mask(rate=0.3, whole_words=whole_words, epoch=epoch) for epoch in range(6)]
    shown = np.concatenate([row for rows, _ in epochs for row in rows])
    labels = np.concatenate([row for _, rows in epochs for row in rows])
    original = np.concatenate(IDS * len(epochs))
    targets = labels != IGNORED_LABEL
    possible = ~np.isin(original, TOKENIZER.all_special_ids)
    # A little more than 0.3: short rows have one target at least.
    assert 0.29 < targets[possible].mean() < 0.36
    assert abs((shown[targets] == TOKENIZER.mask_token_id).mean() - 0.8) < 0.03
    assert abs((shown[targets] == original[targets]).mean() - 0.1) < 0.03
    assert not np.isin(shown[targets], [i for i in TOKENIZER.all_special_ids if i != TOKENIZER.mask_token_id]).any()


def test_whole_words_are_targets_as_a_whole():
    tokens = [TOKENIZER.convert_ids_to_tokens(ids) for ids in IDS]
    _, labels = mask(whole_words=True)
    _, single = mask(whole_words=False)

    def are_whole(all_labels):
        for row, targets in zip(tokens, all_labels, strict=True):
            for position in range(1, len(row) - 1):
                is_one_word = not row[position + 1].startswith(("▁", "["))
                if is_one_word and (targets[position] == IGNORED_LABEL) != (targets[position + 1] == IGNORED_LABEL):
                    return False
        return True

    assert are_whole(labels)
    assert not are_whole(single)


def test_a_row_without_words_has_no_target():
    shown, labels = mask(ids=[[2, 3]])
    assert shown[0].tolist() == [2, 3]
    assert (labels[0] == IGNORED_LABEL).all()


def test_what_cannot_be_masked_is_refused(tmp_path):
    with pytest.raises(UserError, match="do not show where a word begins"):
        Masker(train("word"), Masking(whole_words=True), 0)
    plain = train()
    plain.mask_token = None
    with pytest.raises(UserError, match="mask token"):
        Masker(plain, Masking(), 0)


def test_a_piece_that_looks_like_another_kind_of_tokenizer_changes_nothing():
    texts = [*TEXTS, *["##태그 Ġ문자 ##태그 Ġ문자"] * 50]
    tokenizer = train_tokenizer(
        texts, unit="unigram", vocabulary_size=420, min_frequency=1, lowercase=False, max_length=64, begin_token=True
    )
    sizes = dict(zip(tokenizer.convert_ids_to_tokens(range(len(tokenizer))), bytes_of_tokens(tokenizer), strict=True))
    assert any("#" in token for token in sizes)
    for token, size in list(sizes.items())[5:]:
        assert size == len(token.replace("▁", " ").encode())


@pytest.mark.parametrize("architecture", ["bert", "kobert", "roberta", "xlm-roberta"])
def test_bytes_of_tokens_add_up_to_the_text(tmp_path, architecture):
    assert architecture in ARCHITECTURES
    tokenizer = load_tokenizer(str(write_checkpoint(tmp_path / "checkpoint", architecture)))
    sizes = bytes_of_tokens(tokenizer)
    for text in TEXTS[:50]:
        ids = tokenizer(text)["input_ids"]
        if tokenizer.unk_token_id in ids:
            continue
        counted = int(sizes[ids].sum())
        # WordPiece cuts punctuation off as words, each of which is counted with a space before it.
        extra = sum(not c.isalnum() and not c.isspace() for c in text) if architecture == "bert" else 0
        assert 0 <= counted - len(text.encode()) <= 1 + extra
