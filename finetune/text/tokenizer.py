"""The tokenizer of a model: loaded with it, or trained for it."""

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.data import Splits
from finetune.errors import UserError
from finetune.recipe import EncoderModel, Recipe
from finetune.text.vocabulary import train_tokenizer


def load_tokenizer(name_or_path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub model or a local directory.

    Raises:
        UserError: there is none, or it cannot be reached.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer {name_or_path!r}: {' '.join(str(error).split())}") from None
    if tokenizer.pad_token_id is None:
        raise UserError(f"tokenizer {name_or_path!r} has no pad token, so texts cannot be batched; use another one")
    return tokenizer


def build_tokenizer(recipe: Recipe, splits: Splits) -> PreTrainedTokenizerBase:
    """The tokenizer of a recipe's neural model: named, the checkpoint's own, or trained on the training rows.

    Raises:
        UserError: one that is named is not there, or cannot be reached.
    """
    text, model = recipe.text, recipe.model
    if text.tokenizer_name_or_path is not None:
        return load_tokenizer(text.tokenizer_name_or_path)
    if isinstance(model, EncoderModel) and model.model_name_or_path is not None:
        return load_tokenizer(model.model_name_or_path, model.revision)
    columns = ["text", "text_pair"] if recipe.data.text_pair_column else ["text"]
    return train_tokenizer(
        # As a stream: the training rows may be more than memory holds.
        (line for batch in splits.train.iter(batch_size=1000) for name in columns for line in batch[name]),
        unit=text.unit,
        vocabulary_size=text.vocabulary_size,
        min_frequency=text.min_frequency,
        lowercase=text.lowercase,
        max_length=text.max_length,
        begin_token=isinstance(model, EncoderModel),
    )
