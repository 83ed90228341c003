"""Loading the tokenizer of a pretrained model."""

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.errors import UserError


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
