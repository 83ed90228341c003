"""Vocabularies trained here: deterministic, from the given texts alone, and the same after saving."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from reviews import review_rows
from transformers import AutoTokenizer

from finetune.text import train_tokenizer

TEXTS = [text for text, _ in review_rows(200)]


def train(unit, texts=TEXTS, **options):
    defaults = {"vocabulary_size": 400, "min_frequency": 2, "lowercase": False, "max_length": 32, "begin_token": False}
    return train_tokenizer(texts, unit=unit, **{**defaults, **options})


@pytest.mark.parametrize("unit", ["word", "character", "subword", "unigram"])
@pytest.mark.parametrize("begin_token", [False, True])
def test_saved_and_loaded_tokenizers_give_the_same_ids(tmp_path, unit, begin_token):
    tokenizer = train(unit, begin_token=begin_token)
    tokenizer.save_pretrained(tmp_path / "once")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "once")
    loaded.save_pretrained(tmp_path / "twice")
    again = AutoTokenizer.from_pretrained(tmp_path / "twice")
    texts = [*TEXTS[:50], "처음 보는 말 😀", "ㅋㅋㅋ ㅠㅠ", "A b"]
    assert tokenizer(texts)["input_ids"] == loaded(texts)["input_ids"] == again(texts)["input_ids"]
    assert loaded.padding_side == "right"
    assert loaded.pad_token_id == 1


@pytest.mark.parametrize("unit", ["word", "character", "subword", "unigram"])
def test_equal_texts_give_an_equal_vocabulary_in_another_process(unit):
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    code = (
        f"import sys, json; sys.path[:0] = {folders!r}\n"
        f"from test_vocabulary import train; print(json.dumps(train({unit!r}).get_vocab()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == train(unit).get_vocab()


def test_equally_frequent_characters_are_cut_in_one_way():
    # 300 characters once each, room for 60: which ones stay must not be a matter of chance.
    texts = [chr(ord("가") + number) for number in range(300)]
    first = train("subword", texts, vocabulary_size=120, min_frequency=1).get_vocab()
    for _ in range(5):
        assert train("subword", texts, vocabulary_size=120, min_frequency=1).get_vocab() == first
    assert {"가", "깉"} & first.keys() == {"가"}


def test_special_tokens_and_templates():
    tokenizer = train("word", begin_token=True)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    pair = tokenizer("극장에서", "주말에")
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "극장에서", "[SEP]", "주말에", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]
    plain = train("word")
    assert plain.convert_ids_to_tokens(plain("극장에서")["input_ids"]) == ["극장에서", "[SEP]"]
    assert plain("")["input_ids"] == [3]


def test_units():
    word, character, subword = (train(unit) for unit in ("word", "character", "subword"))
    text = "너무 지루하다"
    assert word.tokenize(text) == ["너무", "지루하다"]
    assert character.tokenize(text) == ["▁", "너", "무", "▁", "지", "루", "하", "다"]
    assert "".join(subword.tokenize(text)) == "▁너무▁지루하다"
    assert len(subword.tokenize(text)) < 8


def test_korean_letters_stay_what_they_are():
    tokenizer = train("character", ["ㅋㅋㅋ ㅠㅠ"] * 3)
    assert tokenizer.convert_tokens_to_ids("ㅋ") != tokenizer.unk_token_id
    assert tokenizer.tokenize("ㅋㅠ") == ["▁", "ㅋ", "ㅠ"]


def test_rare_units_are_unknown_and_the_size_is_kept():
    tokenizer = train("word", ["a a a b", "a a c"], min_frequency=2)
    assert tokenizer.tokenize("a b c") == ["a", "[UNK]", "[UNK]"]
    assert len(train("subword", vocabulary_size=120)) <= 120
    assert train("word", ["Ab ab"], lowercase=True).tokenize("AB") == ["ab"]
