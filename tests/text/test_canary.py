"""The canary: whoever reads a Korean vocabulary in a way it was not made for is refused at the door."""

import json
import shutil

import pytest
from kobert_standin import korean_texts, write_own_layout, write_split_layout
from reviews import review_rows
from tokenizers import CharBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from finetune.cli import main
from finetune.errors import UserError
from finetune.text import load_tokenizer, train_tokenizer
from finetune.text.canary import check_tokenizer
from finetune.text.vocabulary import SPECIAL_TOKENS

ENGLISH = ["a film about nothing", "the actors are good and the plot is not", "never again", "well worth the evening"]


def saved_by_auto_tokenizer(layout, directory):
    """What a script leaves that loads KoBERT's files with AutoTokenizer and saves the result: no error, wrong ids."""
    AutoTokenizer.from_pretrained(layout).save_pretrained(directory)
    shutil.copy(layout / "config.json", directory)
    return directory


def wordpiece(normalizer, texts=None):
    """A Korean WordPiece vocabulary of whole Hangul, behind a normalizer."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        texts or korean_texts(),
        trainers.WordPieceTrainer(vocab_size=1500, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False),
    )
    tokenizer.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def test_the_standin_read_as_xlnet_is_refused(tmp_path):
    layout = write_own_layout(tmp_path / "own")
    directory = saved_by_auto_tokenizer(layout, tmp_path / "wrong")
    assert AutoTokenizer.from_pretrained(directory).pad_token_id == 1  # the special tokens look right
    with pytest.raises(UserError, match="does not read Korean as its vocabulary was made to: of 200 Hangul words"):
        load_tokenizer(str(directory))


def test_the_standin_read_as_wordpiece_is_refused(tmp_path):
    directory = saved_by_auto_tokenizer(write_split_layout(tmp_path / "split"), tmp_path / "wrong")
    with pytest.raises(UserError, match="does not read Korean"):
        load_tokenizer(str(directory))


def test_a_lower_casing_normalizer_that_takes_hangul_apart_is_refused():
    good = wordpiece(normalizers.BertNormalizer(lowercase=False, strip_accents=False))
    check_tokenizer(good, "good")
    assert good.tokenize("영화")
    wrong = wordpiece(normalizers.BertNormalizer(lowercase=True))  # strips accents too, and so decomposes
    with pytest.raises(UserError, match=r"tokenizer 'wrong' .* come out unknown .*lower-casing"):
        check_tokenizer(wrong, "wrong")


def test_letters_that_are_there_and_cannot_be_reached_are_refused():
    texts = [*korean_texts(), *["ㅋ ㅠ ㅋ"] * 50]
    check_tokenizer(wordpiece(normalizers.NFC(), texts), "good")
    with pytest.raises(UserError, match="tokenizer 'wrong': ㅋ is in its vocabulary and comes out unknown"):
        check_tokenizer(wordpiece(normalizers.NFKC(), texts), "wrong")


def test_a_vocabulary_with_the_space_mark_as_a_character_is_checked_all_the_same():
    texts = [*korean_texts(), "▁ 영화 ▁ 재미"]
    check_tokenizer(wordpiece(normalizers.NFC(), texts), "good")
    with pytest.raises(UserError, match="come out unknown"):
        check_tokenizer(wordpiece(normalizers.BertNormalizer(lowercase=True), texts), "wrong")


def test_end_of_word_marks_are_understood():
    tokenizer = CharBPETokenizer(unk_token="[UNK]", bert_normalizer=False)
    tokenizer.train_from_iterator(korean_texts(), vocab_size=1500, special_tokens=["[UNK]"], show_progress=False)
    check_tokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, unk_token="[UNK]"), "good")


@pytest.mark.parametrize("unit", ["word", "character", "subword"])
@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("texts", [korean_texts(), [text for text, _ in review_rows(60)], ENGLISH])
def test_what_is_right_passes(unit, lowercase, texts):
    tokenizer = train_tokenizer(
        texts, unit=unit, vocabulary_size=1500, min_frequency=1, lowercase=lowercase, max_length=32, begin_token=True
    )
    check_tokenizer(tokenizer, "trained here")


def test_kobert_read_in_each_wrong_way_is_refused_with_the_ids(kobert_files, tmp_path, capsys):
    tokens = (kobert_files / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    model = (kobert_files / "tokenizer_78b3253a26.model").read_bytes()
    xlnet = saved_by_auto_tokenizer(write_own_layout(tmp_path / "skt", model, tokens), tmp_path / "saved")
    vocabulary_alone = tmp_path / "vocabulary-alone"
    vocabulary_alone.mkdir()
    shutil.copy(kobert_files / "vocab.txt", vocabulary_alone)
    (vocabulary_alone / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    left = tmp_path / "left"
    load_tokenizer(str(kobert_files)).save_pretrained(left)
    configuration = json.loads((left / "tokenizer_config.json").read_text())
    (left / "tokenizer_config.json").write_text(json.dumps({**configuration, "padding_side": "left"}))
    data = tmp_path / "reviews.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in review_rows(60)), encoding="utf-8")
    for wrong, why in (
        (xlnet, "becomes [517, 493, 0,"),
        (vocabulary_alone, "becomes [2, 0, 0, 0, 54, 3] (3 of 6 unknown) instead of [2, 4958,"),
        (left, "pads on the left"),
    ):
        model_recipe = f"{{family: encoder, model_name_or_path: {wrong}}}"
        command = ["train", "quickstart-encoder", "--data", f"{{train_file: {data}}}", "--model", model_recipe]
        assert main([*command, "--output_dir", str(tmp_path / "runs")]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"finetune: tokenizer {str(wrong)!r} holds KoBERT's vocabulary but is not KoBERT's")
        assert why in error
        assert "tokenizer_78b3253a26.model and vocab.txt" in error
        assert not (tmp_path / "runs" / "quickstart-encoder").exists()
