"""A vocabulary trained on the training rows: words, characters, subwords, Unigram's or bytes, as a fast tokenizer."""

import io
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetune.errors import UserError

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_UNKNOWN, _, _BEGIN, _END, _ = SPECIAL_TOKENS.values()
_UNIGRAM_THREADS = 4
"""Sums over texts are cut by threads: their number, unlike the processor's, must not decide about last bits."""
_UNIGRAM_TEXTS = 500_000
"""A Unigram is trained on this many texts at most, evenly spaced: more take minutes and gigabytes and change little."""


def train_tokenizer(
    texts: Iterable[str],
    *,
    unit: Literal["word", "whitespace", "character", "subword", "unigram", "byte"],
    vocabulary_size: int,
    min_frequency: int,
    lowercase: bool,
    max_length: int,
    begin_token: bool,
) -> PreTrainedTokenizerBase:
    """A tokenizer whose vocabulary comes from `texts` alone; equal texts give an equal vocabulary.

    `texts` may be read twice, so an iterator will not do. `min_frequency` is not for a Unigram, which drops what the
    likelihood misses least, and whose vocabulary may be a little smaller than asked for.

    Every text ends in [SEP], so that no text is empty; with `begin_token` it also begins with [CLS] and a second text
    has token type 1, as BERT wants it. The special tokens have the ids 0 to 4 in the order of `SPECIAL_TOKENS`.
    """
    specials = list(SPECIAL_TOKENS.values())
    # NFC, not NFKC: the latter turns ㅋ and ㅠ into other code points. Runs of spaces carry no meaning in reviews.
    steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    normalizer = normalizers.Sequence([*steps, normalizers.Lowercase()] if lowercase else steps)
    match unit:
        case "word":
            tokenizer = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        case "whitespace":
            tokenizer = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        case "character":
            tokenizer = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
            single = pre_tokenizers.Split(Regex("."), behavior="isolated")
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), single])
            tokenizer.decoder = decoders.Metaspace()
        case "subword":
            tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN, fuse_unk=True))
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
            tokenizer.decoder = decoders.Metaspace()
        case "byte":
            # A letter for each of the 256 bytes, and no merges: nothing is unknown, and nothing is lost.
            letters = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
            tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.decoder = decoders.ByteLevel()
            tokenizer.add_special_tokens(specials)
        case "unigram":
            tokenizer = Tokenizer(_train_unigram(texts, normalizer, vocabulary_size))
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
            tokenizer.decoder = decoders.Metaspace()
    if unit != "byte":
        tokenizer.normalizer = normalizer
    elif lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    options: dict[str, Any] = {"vocab_size": vocabulary_size, "special_tokens": specials, "show_progress": False}
    if unit == "subword":
        # Half of the vocabulary at most for single characters: rare Hanja and emoji would crowd out the subwords.
        alphabet = _most_frequent_characters(texts, tokenizer, vocabulary_size // 2)
        # Left to itself, the trainer chooses by chance among characters that are equally frequent.
        trainer: trainers.Trainer = trainers.BpeTrainer(
            min_frequency=min_frequency, initial_alphabet=alphabet, limit_alphabet=len(alphabet), **options
        )
        tokenizer.train_from_iterator(texts, trainer)
    elif unit not in ("unigram", "byte"):
        tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(min_frequency=min_frequency, **options))
    begin = f"{_BEGIN}:0 " if begin_token else ""
    second_type = 1 if begin_token else 0
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin}$A:0 {_END}:0",
        pair=f"{begin}$A:0 {_END}:0 $B:{second_type} {_END}:{second_type}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (_BEGIN, _END)],
    )
    # Reading its JSON shifts some of a Unigram's scores by their last bit, once; so shifted, they stay the same.
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if begin_token else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        padding_side="right",
        truncation_side="right",
        model_input_names=inputs,
        **SPECIAL_TOKENS,
    )


def _train_unigram(texts: Iterable[str], normalizer: normalizers.Normalizer, vocabulary_size: int) -> models.Unigram:
    """Kudo's Unigram (2018, arXiv:1804.10959) by SentencePiece; the trainer of `tokenizers` differs from run to run."""
    count = sum(1 for _ in texts)
    every = -(-count // _UNIGRAM_TEXTS)
    proto = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(normalizer.normalize_str(text) for text in islice(texts, 0, None, every)),
            model_writer=proto,
            model_type="unigram",
            vocab_size=vocabulary_size - len(SPECIAL_TOKENS) + 1,  # its own <unk>
            hard_vocab_limit=False,  # a small text has fewer pieces
            character_coverage=0.9995,  # the rest, rare Hanja and emoji, is unknown
            normalization_rule_name="identity",
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=1_000_000,  # longer ones than the default would be left out in silence
            num_threads=_UNIGRAM_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        small = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        if small is None:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"text.unit unigram: SentencePiece cannot make {vocabulary_size} pieces: {reason}"
            ) from None
        needed = int(small[1]) + len(SPECIAL_TOKENS) - 1
        raise UserError(
            f"text.vocabulary_size {vocabulary_size} is too small for a Unigram: the characters of these texts alone "
            f"need {needed}; raise it"
        ) from None
    trained = sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())
    pieces = [(trained.id_to_piece(i), trained.get_score(i)) for i in range(1, trained.get_piece_size())]
    specials = [(token, 0.0) for token in SPECIAL_TOKENS.values()]
    return models.Unigram([*specials, *pieces], unk_id=0, byte_fallback=False)


def _most_frequent_characters(texts: Iterable[str], tokenizer: Tokenizer, limit: int) -> list[str]:
    """The `limit` most frequent characters of what the model sees; of equally frequent ones those that sort first."""
    counts: Counter[str] = Counter()
    for text in texts:
        for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            counts.update(piece)
    return sorted(counts, key=lambda character: (-counts[character], character))[:limit]
