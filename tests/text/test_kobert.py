"""KoBERT's tokenizer: the ids of SentencePiece from either layout, kept by saving, and chosen unasked."""

import functools
import json
import subprocess
import sys

import huggingface_hub
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kobert_standin import (
    CONFIG,
    SPECIALS,
    Reference,
    korean_texts,
    original_model,
    standin_reference,
    vocabulary,
    write_own_layout,
    write_split_layout,
)
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

from finetune.errors import UserError
from finetune.text import kobert, load_tokenizer
from finetune.text import tokenizer as tokenizer_module
from finetune.text.canary import KOBERT_IDS, KOBERT_SENTENCE

STRANGE = [
    "",
    "   ",
    "ㅋㅋㅋㅋ ㅠㅠ ㅎㅎㅎ....",
    "``따옴표'' 와 ''또''",
    "café naïve ÅÄÖ",
    "가\u0301나\u200b다\u00a0라\x1c마\u3000바",
    "좋아요❤️👍🏽 최고",
    "ｆｕｌｌ　ｗｉｄｔｈ １２３ ①②",
    "각\u1100\u1161\u11a8",
    "가" * 300,
    "없는글자 뷁 쀍",
    "a\n\nb\tc",
]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The stand-in in every published form."""
    directory = tmp_path_factory.mktemp("kobert")
    return {
        "own": write_own_layout(directory / "own"),
        "split": write_split_layout(directory / "split"),
        "json": write_split_layout(directory / "json", as_json=True),
    }


@pytest.fixture(scope="module")
def standin(layouts):
    return kobert.load_tokenizer(layouts["own"])


@pytest.mark.parametrize("layout", ["own", "split", "json"])
def test_each_layout_gives_the_ids_of_sentencepiece(layouts, layout):
    tokenizer = load_tokenizer(str(layouts[layout]))
    reference = standin_reference()
    texts = [*korean_texts(), *STRANGE]
    found = tokenizer(texts, add_special_tokens=False)["input_ids"]
    expected = [reference.encode(text) for text in texts]
    assert sum(a != b for a, b in zip(found, expected, strict=True)) <= 0.002 * len(texts)
    assert [sorted(ids) for ids in found] == [sorted(ids) for ids in expected]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(
        st.text(max_size=30),
        st.text(alphabet="가영화ㅋㅠ .!'`\"\u0301éｱﾞ\u1100\u1161①㎏\xa0\u200b\x1c\t\ufe0f😀▁", max_size=15),
    )
)
def test_any_text_gives_the_pieces_of_sentencepiece(standin, text):
    assume(not any(token in text for token in SPECIALS))  # those are found in the text first, as in any BERT
    found = standin(text, add_special_tokens=False)["input_ids"]
    assert sorted(found) == sorted(standin_reference().encode(text))


def test_pairs_have_two_token_types_and_padding_is_on_the_right(standin):
    pair = standin("영화", "책")
    tokens = standin.convert_ids_to_tokens(pair["input_ids"])
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    second = tokens.index("[SEP]") + 1
    assert pair["token_type_ids"] == [0] * second + [1] * (len(tokens) - second)
    padded = standin(["영화", "아주 긴 문장을 하나 쓴다"], padding=True)
    assert padded["input_ids"][0][-1] == standin.pad_token_id == 1
    assert standin.convert_ids_to_tokens([0, 1, 2, 3, 4]) == SPECIALS


def test_saved_and_loaded_twice_without_our_code_the_ids_are_the_same(standin, tmp_path):
    texts = [*korean_texts(), *STRANGE]
    expected = standin(texts)["input_ids"]
    standin.save_pretrained(tmp_path / "once")
    # A model's configuration beside it must not make AutoTokenizer choose another class.
    (tmp_path / "once" / "config.json").write_text(json.dumps(CONFIG))
    AutoTokenizer.from_pretrained(tmp_path / "once").save_pretrained(tmp_path / "twice")
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    code = (
        "import json, sys; from transformers import AutoTokenizer\n"
        "texts = json.load(open('texts.json'))\n"
        "print(json.dumps([AutoTokenizer.from_pretrained(d)(texts)['input_ids'] for d in ('once', 'twice')]))\n"
        "assert 'finetune' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout) == [expected, expected]
    for name in ("once", "twice"):
        assert "auto_map" not in (tmp_path / name / "tokenizer_config.json").read_text()
    assert load_tokenizer(str(tmp_path / "twice"))(texts)["input_ids"] == expected


@pytest.mark.parametrize("name", ["skt/kobert-base-v1", "monologg/kobert"])
def test_a_hub_model_with_these_files_gets_it(layouts, tmp_path, monkeypatch, name):
    layout = layouts["own" if name.startswith("skt") else "split"]
    snapshot = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for file in layout.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
    cached = functools.partial(huggingface_hub.snapshot_download, cache_dir=tmp_path)
    monkeypatch.setattr(tokenizer_module, "snapshot_download", cached)
    tokenizer = load_tokenizer(name)
    assert tokenizer(korean_texts())["input_ids"] == kobert.load_tokenizer(layout)(korean_texts())["input_ids"]


def test_damaged_and_incomplete_files_are_refused_in_one_line(layouts, tmp_path):
    def refused(name, files, message):
        directory = tmp_path / name
        directory.mkdir()
        for file, content in files.items():
            (directory / file).write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            load_tokenizer(str(directory))
        assert "\n" not in str(caught.value)
        assert str(directory) in str(caught.value)

    model, own = original_model(), (layouts["own"] / "spiece.model").read_bytes()
    split = "tokenizer_78b3253a26.model"
    tokens = vocabulary()
    refused("alone", {split: model}, "ids of its own.*put vocab.txt or kobertvocab")
    foreign = "\n".join([*SPECIALS, "영화관에서는요", *tokens[5:]]).encode()
    refused("foreign", {split: model, "vocab.txt": foreign}, "'영화관에서는요' is no piece of it")
    refused("order", {split: model, "vocab.txt": "\n".join(tokens[1:]).encode()}, "special tokens are not KoBERT's")
    refused("json", {split: model, "kobertvocab_f38b8a4d6d.json": b"{}"}, "not a vocabulary of KoBERT's")
    refused("list", {split: model, "kobertvocab_f38b8a4d6d.json": b"[1, 2]"}, "not a vocabulary of KoBERT's")
    refused("cp949", {split: model, "vocab.txt": "영화".encode("cp949")}, "not a vocabulary of KoBERT's")
    refused("truncated", {"spiece.model": own[:-700]}, "damaged; download it again")
    refused("pointer", {"spiece.model": b"version https://git-lfs.github.com/spec/v1\n"}, "download it again")
    refused("empty", {"spiece.model": b""}, "download it again")


def test_a_spiece_model_of_another_family_is_not_kobert(tmp_path):
    (tmp_path / "spiece.model").write_bytes(original_model())  # begins with <unk>, as XLNet's and ALBERT's do
    assert not kobert.is_kobert(tmp_path)
    assert not kobert.is_kobert(tmp_path / "nothing")
    without_map = sentencepiece_model_pb2.ModelProto.FromString(original_model())
    without_map.normalizer_spec.precompiled_charsmap = b""
    (tmp_path / "spiece.model").write_bytes(without_map.SerializeToString())
    assert not kobert.is_kobert(tmp_path)


# --- on the original files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(kobert_files):
    return load_tokenizer(str(kobert_files))


@pytest.fixture(scope="module")
def original_reference(kobert_files):
    tokens = (kobert_files / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return Reference((kobert_files / "tokenizer_78b3253a26.model").read_bytes(), tokens)


def test_the_official_example(original):
    assert original(KOBERT_SENTENCE)["input_ids"] == list(KOBERT_IDS)
    assert len(original) == 8002
    pair = original("한국어", "모델")
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1]


def test_the_original_files_in_the_other_layout_give_the_same_ids(original, original_reference, kobert_files, tmp_path):
    model = (kobert_files / "tokenizer_78b3253a26.model").read_bytes()
    other = load_tokenizer(str(write_own_layout(tmp_path / "skt", model, list(original_reference.ids))))
    assert other(korean_texts())["input_ids"] == original(korean_texts())["input_ids"]


@pytest.mark.parametrize("rows", [10_000, pytest.param(80_000, marks=pytest.mark.slow)])
def test_parity_with_sentencepiece_on_nsmc(original, original_reference, nsmc, tmp_path, rows):
    texts = [
        text or ""
        for name in ("test", "train")
        for text in pq.read_table(nsmc / f"{name}.parquet")["document"].to_pylist()
    ]
    texts = texts[:rows]
    expected = [original_reference.encode(text) for text in texts]
    original.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    found = original(texts, add_special_tokens=False)["input_ids"]
    assert again(texts, add_special_tokens=False)["input_ids"] == found
    different = [(a, b) for a, b in zip(found, expected, strict=True) if a != b]
    print(f"{len(different)} of {len(texts)} rows differ")
    assert len(texts) == rows
    assert len(different) <= 0.002 * rows
    assert all(sorted(a) == sorted(b) for a, b in different)
