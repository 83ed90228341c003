"""The tokenizer of a model: loaded with it, or trained for it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetune.data import Splits
from finetune.errors import UserError
from finetune.recipe import EncoderModel, Recipe, TransformerModel, local_name
from finetune.run import model_place
from finetune.text import kobert
from finetune.text.canary import check_tokenizer
from finetune.text.causal import KOGPT2_SPECIALS, for_generation, is_kogpt2
from finetune.text.masking import Masker
from finetune.text.pairs import for_pairs
from finetune.text.sampling import unigram_of
from finetune.text.vocabulary import train_tokenizer

_FAST = "tokenizer.json"


def load_tokenizer(
    name_or_path: str,
    revision: str | None = None,
    *,
    generates: bool = False,
    joined: bool = False,
    pairs: bool = False,
) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub model or a local directory; KoBERT's is built from its original files.

    One for a model that `generates` is made fit for that, and for texts that are `joined` into one, or for `pairs` of a
    prompt that an encoder reads and what is written after it.

    Raises:
        UserError: there is none, it cannot be reached, or it reads Korean wrongly.
    """
    name_or_path = local_name(name_or_path)
    directory = _kobert_directory(name_or_path, revision)
    if directory is not None:
        tokenizer: PreTrainedTokenizerBase = kobert.load_tokenizer(directory)
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, revision=revision, trust_remote_code=False)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"tokenizer {name_or_path!r}: {' '.join(str(error).split())}") from None
        if is_kogpt2(tokenizer):
            # Named as GPT-2's, it gets GPT-2's end token, which its model has no embedding for.
            fast: Any = PreTrainedTokenizerFast
            tokenizer = fast.from_pretrained(name_or_path, revision=revision, **KOGPT2_SPECIALS)
    if generates:
        tokenizer = for_pairs(tokenizer) if pairs else for_generation(tokenizer, joined=joined)
    if tokenizer.pad_token_id is None:
        raise UserError(f"tokenizer {name_or_path!r} has no pad token, so texts cannot be batched; use another one")
    check_tokenizer(tokenizer, name_or_path)
    return tokenizer


def _kobert_directory(name_or_path: str, revision: str | None) -> Path | None:
    """Where a checkpoint has tokenizer files in one of KoBERT's layouts: its directory, or the Hub's cache of them."""
    directory = Path(name_or_path).expanduser()
    if not directory.is_dir():
        files = [_FAST, *kobert.FILES]
        try:
            directory = Path(snapshot_download(name_or_path, revision=revision, allow_patterns=files))
        except (OSError, ValueError):
            return None  # no such model, or no way to it: the tokenizer's own loading says which
    # What was saved as a fast tokenizer is complete, and may have tokens added to it.
    return directory if not (directory / _FAST).exists() and kobert.is_kobert(directory) else None


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Save a tokenizer so that `AutoTokenizer` of transformers 4 and 5 finds it."""
    tokenizer.save_pretrained(directory)
    file = directory / "tokenizer_config.json"
    configuration = json.loads(file.read_text(encoding="utf-8"))
    if configuration["tokenizer_class"] == "TokenizersBackend":
        # The new name of PreTrainedTokenizerFast; version 5 knows both, version 4 the old one.
        configuration["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(configuration, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Lines:
    """The texts of rows as a stream that can be read again: the rows may be more than memory holds."""

    rows: datasets.Dataset
    columns: list[str]

    def __iter__(self) -> Iterator[str]:
        for batch in self.rows.iter(batch_size=1000):
            for name in self.columns:
                yield from batch[name]


def build_tokenizer(recipe: Recipe, splits: Splits) -> PreTrainedTokenizerBase:
    """The tokenizer of a recipe's neural model: named, the checkpoint's own, or trained on the training rows.

    Raises:
        UserError: one that is named is not there, cannot be reached, or cannot do what the recipe asks of it.
    """
    model, generates = recipe.model, recipe.task == "generate"
    joined, pairs = recipe.training.truncated_bptt is not None, recipe.reads_prompts
    if recipe.text.tokenizer_name_or_path is not None:
        # Of a run its tokenizer is meant, as when its word vectors are.
        named = model_place(recipe.text.tokenizer_name_or_path)
        tokenizer = load_tokenizer(named, generates=generates, joined=joined, pairs=pairs)
    elif isinstance(model, TransformerModel) and model.model_name_or_path is not None:
        tokenizer = load_tokenizer(
            model.model_name_or_path, model.revision, generates=generates, joined=joined, pairs=pairs
        )
    else:
        tokenizer = tokenizer_of_rows(recipe, splits)
        if generates:
            tokenizer = for_pairs(tokenizer) if pairs else for_generation(tokenizer, joined=joined)
    if recipe.text.subword_sampling_alpha is not None:
        unigram_of(tokenizer)
    if recipe.task == "masked_lm":
        Masker(tokenizer, recipe.masking, recipe.seed)
    return tokenizer


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over what a tokenizer makes of text: equal for equal vocabularies and rules."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(rules.encode("utf-8", "surrogatepass")).hexdigest()


def tokenizer_of_rows(recipe: Recipe, splits: Splits) -> PreTrainedTokenizerBase:
    """A tokenizer trained on the training rows as the recipe's text section says, whatever tokenizer it names."""
    text, model = recipe.text, recipe.model
    return train_tokenizer(
        _Lines(splits.train, [name for name in ("text", "text_pair", "prompt") if name in splits.train.column_names]),
        unit=text.unit,
        vocabulary_size=text.vocabulary_size,
        min_frequency=text.min_frequency,
        lowercase=text.lowercase,
        max_length=text.max_length,
        begin_token=isinstance(model, EncoderModel) or (recipe.task == "generate" and not recipe.reads_prompts),
    )
