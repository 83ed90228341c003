"""Rows for causal language models: each token is learnt once, the end token too, prompts and users are not."""

import json
from itertools import pairwise

import datasets
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from finetune.errors import UserError
from finetune.recipe import embedded_model
from finetune.text import load_tokenizer
from finetune.text.causal import chat_ids, encode_documents, for_generation, is_kogpt2, prompt_ids
from finetune.text.masking import IGNORED_LABEL
from finetune.text.vocabulary import train_tokenizer

TEXTS = ["정말 재미있는 영화", "지루하다", "배우들 연기가 정말 좋았어요 또 보고 싶다"] * 20
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    trained = train_tokenizer(
        TEXTS, unit="subword", vocabulary_size=200, min_frequency=1, lowercase=False, max_length=64, begin_token=True
    )
    return for_generation(trained)


def byte_tokenizer(*added, **specials):
    """A byte-level tokenizer like GPT-2's: no pad token, and nothing added to a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", *added, *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", *added])
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**names, **specials})


def encode(rows, tokenizer, max_length=64, **options):
    columns = {"id": [f"r{i}" for i in range(len(rows))], **{k: [row[k] for row in rows] for k in rows[0]}}
    return encode_documents(datasets.Dataset.from_dict(columns), tokenizer, max_length, **options)


def learnt(window):
    return [token for token in window["label"] if token != IGNORED_LABEL]


@pytest.mark.parametrize("max_length", [3, 4, 64])
def test_each_token_of_a_document_is_a_target_once_and_windows_go_on_where_the_last_ended(tokenizer, max_length):
    texts = ["배우들 연기가 정말 좋았어요 또 보고 싶다", "지루하다"]
    encoded = encode([{"text": text} for text in texts], tokenizer, max_length)
    for number, text in enumerate(texts):
        windows = [window for window in encoded if window["row"] == number]
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert [token for window in windows for token in window["label"]] == [*plain, tokenizer.eos_token_id]
        assert windows[0]["input_ids"][0] == tokenizer.bos_token_id
        for before, after in pairwise(windows):
            assert after["input_ids"][0] == before["label"][-1]
        for window in windows:
            assert window["input_ids"][1:] == window["label"][:-1]
            assert len(window["label"]) == window["length"] <= max_length
        assert sum(window["tokens"] for window in windows) == len(plain) + 1
        assert sum(window["bytes"] for window in windows) == len(text.encode())
        assert sum(window["characters"] for window in windows) == len(text)
        assert sum(window["unknown_bytes"] for window in windows) == 0


def test_text_that_became_unknown_tokens_is_counted_in_bytes(tokenizer):
    row = encode([{"text": "지루하다 龍虎 정말"}], tokenizer)[0]
    assert tokenizer.unk_token_id in row["input_ids"]
    assert row["unknown_bytes"] == len("龍虎".encode())
    assert row["bytes"] == len("지루하다 龍虎 정말".encode())


def test_a_prompt_is_read_and_not_learnt(tokenizer):
    row = encode([{"prompt": "정말", "text": "지루하다"}], tokenizer)[0]
    answer = tokenizer("지루하다", add_special_tokens=False)["input_ids"]
    prompt = prompt_ids("정말", tokenizer)
    assert row["input_ids"] == [*prompt, *answer]
    assert learnt(row) == [*answer, tokenizer.eos_token_id]
    assert row["label"].index(answer[0]) == len(prompt) - 1
    assert (row["tokens"], row["bytes"], row["characters"]) == (len(answer) + 1, 12, 4)


def test_a_long_prompt_loses_its_beginning_and_a_long_answer_its_end(tokenizer):
    long = "배우들 연기가 정말 좋았어요 또 보고 싶다"
    answer = tokenizer("지루하다", add_special_tokens=False)["input_ids"]
    prompt = tokenizer(long, add_special_tokens=False)["input_ids"]
    room = len(answer) + 3  # the start token and two of the prompt
    row = encode([{"prompt": long, "text": "지루하다"}], tokenizer, room)[0]
    assert row["input_ids"] == [tokenizer.bos_token_id, *prompt[-2:], *answer]
    assert learnt(row) == [*answer, tokenizer.eos_token_id]
    row = encode([{"prompt": "정말", "text": long}], tokenizer, 4)[0]
    assert row["input_ids"] == [tokenizer.bos_token_id, *prompt[:3]]
    assert learnt(row) == prompt[:4]  # and so not the end token: the text does not end there
    assert long.startswith(tokenizer.decode(prompt[:4]))
    assert row["characters"] < len(long)
    assert row["bytes"] == len(long[: row["characters"]].encode())


def test_the_end_token_is_learnt_although_it_pads():
    tokenizer = for_generation(byte_tokenizer())
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    row = encode([{"text": "ab"}], tokenizer)[0]
    assert row["label"][-1] == tokenizer.eos_token_id
    assert row["input_ids"][0] == tokenizer.bos_token_id


def test_there_is_one_start_token():
    adds_its_own = byte_tokenizer("<s>", bos_token="<s>")
    adds_its_own.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = for_generation(adds_its_own)
    for text in ("ab", "<s>ab"):
        assert prompt_ids(text, tokenizer).count(1) == 1
        assert encode([{"text": text}], tokenizer)[0]["input_ids"].count(1) == 1
    assert prompt_ids("", tokenizer) == [1]


def test_an_encoders_tokenizer_begins_texts_and_does_not_end_them():
    tokenizer = for_generation(AutoTokenizer.from_pretrained(embedded_model("embedded:mini-bert-ko")))
    ids = tokenizer("정말")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == tokenizer.cls_token_id
    assert tokenizer.eos_token_id == tokenizer.sep_token_id
    assert tokenizer.eos_token_id not in ids
    assert prompt_ids("정말", tokenizer) == ids


def chats(tokenizer):
    tokenizer.chat_template = TEMPLATE
    return for_generation(tokenizer)


def test_of_a_chat_the_assistant_is_learnt_and_how_it_ends():
    tokenizer = chats(byte_tokenizer("<|user|>", "<|assistant|>", "<|end|>", eos_token="<|end|>"))
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "so"},
        {"role": "assistant", "content": "no"},
    ]
    row = encode([{"text": json.dumps(messages)}], tokenizer, chats=True)[0]
    assert tokenizer.decode(learnt(row)) == "yes<|end|>no<|end|>"
    whole = tokenizer.decode([*row["input_ids"], row["label"][-1]])
    assert whole == "<|user|>hi<|end|><|assistant|>yes<|end|><|user|>so<|end|><|assistant|>no<|end|>"
    assert row["input_ids"][:5] == chat_ids(messages[:1], tokenizer)[:5]
    assert tokenizer.decode(chat_ids(messages[:1], tokenizer)) == "<|user|>hi<|end|><|assistant|>"


def test_chats_that_cannot_be_told_apart_are_refused():
    tokenizer = chats(byte_tokenizer())
    tokenizer.chat_template = "{{ messages | length }}" + TEMPLATE
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    with pytest.raises(UserError, match="row r0: the chat template"):
        encode([{"text": json.dumps([*messages, *messages])}], tokenizer, chats=True)
    tokenizer.chat_template = "{{ raise_exception('no system message') }}"
    with pytest.raises(UserError, match="no system message"):
        encode([{"text": json.dumps(messages)}], tokenizer, chats=True)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="chat template"):
        encode([{"text": json.dumps(messages)}], tokenizer, chats=True)


def test_what_cannot_end_is_refused():
    with pytest.raises(UserError, match="no end token"):
        for_generation(byte_tokenizer(eos_token=None, bos_token=None))


def test_kogpt2_gets_its_own_special_tokens(tmp_path):
    """Its files name none; read as GPT-2's, the end token would be one that its model has no embedding for."""
    named = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>", "<unused0>"]
    alphabet = ["▁", *"가나다"]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate([*named, *alphabet])}, [], unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.add_special_tokens(named)
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 12}), encoding="utf-8")
    assert is_kogpt2(AutoTokenizer.from_pretrained(tmp_path))  # the trap is still there
    tokenizer = load_tokenizer(str(tmp_path), generates=True)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 1, 3)
    assert len(tokenizer) == len(named) + len(alphabet)
    row = encode([{"text": "가나"}], tokenizer)[0]
    assert row["input_ids"] == [1, *[8 + alphabet.index(c) for c in "▁가나"]]
    assert row["label"][-1] == 1


def test_bytes_say_everything_and_what_spaces_part_are_words():
    text = "  龍 ㅋㅋ\t<unk> don't "
    for unit, expected in (("byte", text), ("whitespace", "龍 ㅋㅋ <unk> don't")):
        trained = train_tokenizer(
            [text], unit=unit, vocabulary_size=300, min_frequency=1, lowercase=False, max_length=64, begin_token=True
        )
        row = encode([{"text": text}], for_generation(trained))[0]
        assert trained.decode(row["label"][:-1]) == expected
        assert row["unknown_bytes"] == 0
        assert row["tokens"] == (len(text.encode()) if unit == "byte" else 4) + 1


def test_rows_keep_their_order_in_large_sets(tokenizer):
    texts = [TEXTS[i % 3] + " 정말" * (i % 7) for i in range(2500)]  # more than one batch of the mapping
    encoded = encode([{"text": text} for text in texts], tokenizer, 8)
    rows = np.array(encoded["row"])
    assert (np.diff(rows) >= 0).all()
    assert set(rows) == set(range(2500))
