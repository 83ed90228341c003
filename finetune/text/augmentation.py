"""Training texts with noise, drawn anew in every epoch, so that a model learns to read through it."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from finetune.text.noise import NOISES


class NoiseAugmenter:
    """Puts noise into a share of the training rows, both drawn from the seed, the epoch and the row alone."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        names: Sequence[str],
        share: float,
        seed: int,
        max_length: int,
        *,
        encodes: bool,
    ) -> None:
        """`encodes` says whether the texts become tokens here; where subwords are sampled, they do so after this."""
        self._names = tuple(names)
        self._share = share
        self._seed = seed
        self._inputs = tokenizer.model_input_names
        self._backend: Tokenizer | None = None
        if encodes:
            self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            self._backend.no_padding()
            self._backend.enable_truncation(max_length, direction=tokenizer.truncation_side)

    def encode(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int], epoch: int) -> dict[str, Any]:
        """`columns` (text, perhaps text_pair, label) of `rows` -> the same with noise, or what `tasks.encode` gives."""
        names = [name for name in ("text", "text_pair") if name in columns]
        texts = {
            name: [self.noisy(text, row, epoch, name) for text, row in zip(columns[name], rows, strict=True)]
            for name in names
        }
        if self._backend is None:
            return {**columns, **texts}
        # Row by row: the library encodes a batch in threads, which do not live on in a data loader's forked workers.
        encoded = [self._backend.encode(*pair) for pair in zip(*texts.values(), strict=True)]
        found = {"input_ids": [encoding.ids for encoding in encoded]}
        if "token_type_ids" in self._inputs:
            found["token_type_ids"] = [encoding.type_ids for encoding in encoded]
        return {**{name: columns[name] for name in columns if name not in names}, **found}

    def noisy(self, text: str, row: int, epoch: int, column: str = "text") -> str:
        """The text of a row in an epoch: mostly as it is, else with one kind of noise."""
        rng = Random(f"{self._seed} epoch {epoch} row {row} {column}")
        if rng.random() >= self._share:
            return text
        name = self._names[int(rng.random() * len(self._names))]
        return NOISES[name](text, rng)
