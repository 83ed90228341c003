"""A vocabulary trained on the training rows: words, characters or subwords, as a fast tokenizer."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_UNKNOWN, _, _BEGIN, _END, _ = SPECIAL_TOKENS.values()


def train_tokenizer(
    texts: Iterable[str],
    *,
    unit: Literal["word", "character", "subword"],
    vocabulary_size: int,
    min_frequency: int,
    lowercase: bool,
    max_length: int,
    begin_token: bool,
) -> PreTrainedTokenizerBase:
    """A tokenizer whose vocabulary comes from `texts` alone; equal texts give an equal vocabulary.

    `texts` may be read twice, so an iterator will not do. Every text ends in [SEP], so that no text is empty; with `begin_token` it also begins with [CLS] and a second text
    has token type 1, as BERT wants it. The special tokens have the ids 0 to 4 in the order of `SPECIAL_TOKENS`.
    """
    specials = list(SPECIAL_TOKENS.values())
    match unit:
        case "word":
            tokenizer = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        case "character":
            tokenizer = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
            single = pre_tokenizers.Split(Regex("."), behavior="isolated")
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), single])
        case "subword":
            tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN, fuse_unk=True))
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    # NFC, not NFKC: the latter turns ㅋ and ㅠ into other code points. Runs of spaces carry no meaning in reviews.
    steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Lowercase()] if lowercase else steps)
    options: dict[str, Any] = {"vocab_size": vocabulary_size, "special_tokens": specials, "show_progress": False}
    if unit == "subword":
        # Half of the vocabulary at most for single characters: rare Hanja and emoji would crowd out the subwords.
        alphabet = _most_frequent_characters(texts, tokenizer, vocabulary_size // 2)
        # Left to itself, the trainer chooses by chance among characters that are equally frequent.
        trainer: trainers.Trainer = trainers.BpeTrainer(
            min_frequency=min_frequency, initial_alphabet=alphabet, limit_alphabet=len(alphabet), **options
        )
    else:
        trainer = trainers.WordLevelTrainer(min_frequency=min_frequency, **options)
    tokenizer.train_from_iterator(texts, trainer)
    begin = f"{_BEGIN}:0 " if begin_token else ""
    second_type = 1 if begin_token else 0
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin}$A:0 {_END}:0",
        pair=f"{begin}$A:0 {_END}:0 $B:{second_type} {_END}:{second_type}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (_BEGIN, _END)],
    )
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if begin_token else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        padding_side="right",
        truncation_side="right",
        model_input_names=inputs,
        **SPECIAL_TOKENS,
    )


def _most_frequent_characters(texts: Iterable[str], tokenizer: Tokenizer, limit: int) -> list[str]:
    """The `limit` most frequent characters of what the model sees; of equally frequent ones those that sort first."""
    counts: Counter[str] = Counter()
    for text in texts:
        for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            counts.update(piece)
    return sorted(counts, key=lambda character: (-counts[character], character))[:limit]
