"""What the tasks mean: how rows are encoded and batched, what the loss is, and what a prediction is.

Labels that are whole numbers are classes, labels that are floats are ratings, several floats for each row say which of
its labels a row has, and whole numbers for each token are tokens to be found; a batch says by itself which it holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from finetune.data.splits import holds_label_sets, id_array
from finetune.losses import Criterion, label_set_loss
from finetune.models.recurrent_lm import State
from finetune.text.causal import SIZES
from finetune.text.masking import IGNORED_LABEL

_TARGETS_AT_ONCE = 2048
_OF_TARGETS = 2
"""Dimensions of logits, (targets, vocabulary), that are of the targets alone."""
_HEADS = (
    "cls",  # BERT, KoBERT, DeBERTa
    "lm_head",  # RoBERTa, XLM-R; GPT-2, Llama, Qwen and most decoders
    "embed_out",  # GPT-NeoX
    "generator_predictions",  # ELECTRA
    "vocab_transform",  # DistilBERT
    "predictions",  # ALBERT
    "lm_predictions",  # DeBERTa as it was published
    "head",  # ModernBERT
)
"""Where models with a head over the vocabulary keep it (its first module), by architecture."""


THRESHOLD = 0.5
"""Of rows that may have several labels, the probability from which one is given."""
BOOKKEEPING = frozenset({"id", "row", "length", *SIZES})
"""Columns of encoded rows that no model is given."""


def encode(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, *, keep_text: bool = False
) -> datasets.Dataset:
    """Rows with id, text (text_pair) and label -> input_ids (token_type_ids), length and label; memory-mapped.

    Rows without a `label` column (to be predicted) get none. With `keep_text` the texts stay, to be encoded anew.
    """

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(
            batch["text"],
            batch.get("text_pair"),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}

    columns = [] if keep_text else [name for name in rows.column_names if name not in ("id", "label")]
    # The cache does not see which tokenizer code ran, and tokenizing costs seconds for a hundred thousand rows.
    return rows.map(tokenize, batched=True, remove_columns=columns, load_from_cache_file=False)


def lengths(encoded: datasets.Dataset) -> NDArray[np.int64]:
    """Tokens per row, (n,)."""
    return encoded.select_columns(["length"]).with_format("arrow")[:]["length"].to_numpy()


def collate(columns: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Encoded rows -> keyword arguments of `forward`: input_ids, attention_mask (token_type_ids), labels.

    All are (batch, length), but labels of whole rows are (batch,), or (batch, labels) where a row may have several;
    padding is on the right, to the longest row. Rows that have `features` in place of tokens give those, (batch,
    hidden).
    """
    batch = _features(columns) if "features" in columns else _tokens(columns, tokenizer)
    if "label" in columns and _are_label_sets(columns["label"]):
        batch["labels"] = torch.tensor(columns["label"], dtype=torch.float32)
    elif "label" in columns and isinstance(columns["label"][0], Sequence | np.ndarray):
        # Of the length of what the tokens are told from: the decoder's, where there is one apart.
        length = batch.get("decoder_input_ids", batch["input_ids"]).shape[1]
        batch["labels"] = _padded(columns["label"], length, IGNORED_LABEL)
    elif "label" in columns:
        is_rating = isinstance(columns["label"][0], float)
        batch["labels"] = torch.tensor(columns["label"], dtype=torch.float32 if is_rating else torch.long)
    return batch


def _features(columns: Mapping[str, Sequence[Any]]) -> dict[str, Tensor]:
    return {"features": torch.tensor(columns["features"], dtype=torch.float32)}


def _tokens(columns: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    sequences = columns["input_ids"]
    lengths = torch.tensor([len(ids) for ids in sequences])
    longest = int(lengths.max())
    batch = {
        "input_ids": _padded(sequences, longest, tokenizer.pad_token_id),
        "attention_mask": (torch.arange(longest) < lengths.unsqueeze(1)).long(),
    }
    if "token_type_ids" in columns:
        batch["token_type_ids"] = _padded(columns["token_type_ids"], longest, tokenizer.pad_token_type_id)
    if "decoder_input_ids" in columns:
        length = max(len(ids) for ids in columns["decoder_input_ids"])
        batch["decoder_input_ids"] = _padded(columns["decoder_input_ids"], length, tokenizer.pad_token_id)
        if "own_tokens" in columns:
            batch["own_tokens"] = _padded(columns["own_tokens"], length, 0).bool()
    return batch


def _padded(rows: Sequence[Sequence[int]], length: int, filling: int) -> Tensor:
    """Rows of numbers, (rows, length), filled up on the right."""
    padded = np.full((len(rows), length), filling, dtype=np.int64)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return torch.from_numpy(padded)


def _are_label_sets(labels: Sequence[Any]) -> bool:
    """Whether they are numbers for each label, rather than for each token."""
    first = labels[0]
    return isinstance(first, list) and len(first) > 0 and isinstance(first[0], float)


def without_targets(labels: Tensor) -> Tensor:
    """Labels of the same shape and kind, none of which is a target."""
    return torch.full_like(labels, float("nan") if labels.is_floating_point() else IGNORED_LABEL)


def loss_sum(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """`loss_and_state`'s loss, of rows that stand by themselves."""
    return loss_and_state(model, batch)[0]


def loss_and_state(
    model: nn.Module, batch: Mapping[str, Tensor], state: State | None = None, criterion: Criterion | None = None
) -> tuple[Tensor, State | None]:
    """The cross-entropy, or for ratings the squared error, summed over the targets: a scalar, in float32 at least.

    Where a row may have several labels, the binary cross-entropy of each, as a mean over the labels of a row, summed
    over the rows. Of labels that are classes or sets, what `criterion` says instead, if there is one.

    A sum (over rows, or over tokens), so that dividing once by the targets of the whole step is exact however the step
    is cut into batches. A recurrent language model goes on from `state`, and gives the one that it ends in.
    """
    logits, after = _logits(model, batch, state)
    if _takes_targets(model):
        return logits[:, 0].sum(), after
    return _loss_of(logits, batch, criterion), after


def _loss_of(logits: Tensor, batch: Mapping[str, Tensor], criterion: Criterion | None) -> Tensor:
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if _has_token_targets(batch):
        return nn.functional.cross_entropy(logits, batch["labels"][_targets(batch)], reduction="sum")
    if batch["labels"].ndim == 2:
        return (criterion or label_set_loss)(logits, batch["labels"])
    if batch["labels"].is_floating_point():
        errors = logits.squeeze(-1) - batch["labels"].to(logits.dtype)
        return errors[~errors.isnan()].square().sum()
    if criterion is not None:
        return criterion(logits, batch["labels"])
    return nn.functional.cross_entropy(logits, batch["labels"], ignore_index=IGNORED_LABEL, reduction="sum")


def target_count(batch: Mapping[str, Tensor]) -> int:
    """How many targets the batch has."""
    return int(_targets(batch).sum())


def _targets(batch: Mapping[str, Tensor]) -> Tensor:
    """Which labels are targets, of the labels' shape; of rows with several labels each is one target, (batch,)."""
    labels = batch["labels"]
    if not labels.is_floating_point():
        return labels != IGNORED_LABEL
    return ~labels.isnan() if labels.ndim == 1 else ~labels.isnan().any(dim=1)


def _has_token_targets(batch: Mapping[str, Tensor]) -> bool:
    return "labels" in batch and batch["labels"].ndim == 2 and not batch["labels"].is_floating_point()


def _logits(model: nn.Module, batch: Mapping[str, Tensor], state: State | None = None) -> tuple[Tensor, State | None]:
    """What the model says of each row, (batch, labels), or of each token that is a target, (targets, vocabulary).

    And the state that it ends in, if it has one. A head that takes targets says less, as `AdaptiveHead.forward` does.
    """
    inputs: dict[str, Any] = {name: tensor for name, tensor in batch.items() if name != "labels"}
    if state is not None:
        inputs["state"] = state
    if not _has_token_targets(batch):
        return model(**inputs).logits, None
    targets = _targets(batch)
    with _head_sees(model, targets, batch["labels"]):
        output = model(**inputs)
    logits: Tensor = output.logits if output.logits.ndim <= _OF_TARGETS else output.logits[targets]
    return logits, getattr(output, "state", None)


@contextmanager
def _head_sees(model: nn.Module, targets: Tensor, labels: Tensor) -> Iterator[None]:
    """Let the head over the vocabulary see the targets alone: it costs as much as a small encoder, mostly for naught.

    A hook inside the forward pass, so that DistributedDataParallel around the model does its part. A head that takes
    targets is told them.
    """
    head = _vocabulary_head(model)
    if head is None:
        yield
        return
    sought = {"targets": labels[targets]} if _takes_targets(model) else {}

    def choose(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (inputs[0][targets], *inputs[1:]), {**named, **sought}

    hook = head.register_forward_pre_hook(choose, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _vocabulary_head(model: nn.Module) -> nn.Module | None:
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    return next((getattr(inner, name) for name in _HEADS if hasattr(inner, name)), None)


def _takes_targets(model: nn.Module) -> bool:
    return getattr(_vocabulary_head(model), "takes_targets", False)


def is_rating(model: nn.Module) -> bool:
    """Whether a model gives ratings rather than labels."""
    config: Any = model.config
    return config.problem_type == "regression"


def gives_several(model: nn.Module) -> bool:
    """Whether a model says of each label by itself whether a row has it."""
    config: Any = model.config
    return config.problem_type == "multi_label_classification"


def probabilities(model: nn.Module, logits: Tensor) -> Tensor:
    """Logits (rows, labels) -> the probability of each label: of one among them all, or of each by itself.

    Ratings (rows, 1) stay what they are.
    """
    if is_rating(model):
        return logits
    return logits.sigmoid() if gives_several(model) else logits.softmax(dim=-1)


def given_labels(of_row: Sequence[float], labels: Sequence[str]) -> list[str]:
    """The labels whose probability, (labels,), reaches `THRESHOLD`, in their order."""
    return [label for label, probability in zip(labels, of_row, strict=True) if probability >= THRESHOLD]


def input_columns(encoded: datasets.Dataset) -> list[str]:
    """The columns of encoded rows that a model is given; the targets among the tokens are some of them."""
    of_tokens = isinstance(encoded.features.get("label"), datasets.List) and not holds_label_sets(encoded)
    return [name for name in encoded.column_names if name not in BOOKKEEPING and (name != "label" or of_tokens)]


def sum_windows(outputs: NDArray[Any], encoded: datasets.Dataset) -> NDArray[Any]:
    """Outputs by window, (windows, columns) -> summed by document, (documents, columns); other rows stay."""
    if "row" not in encoded.column_names:
        return outputs
    rows = encoded.select_columns(["row"]).with_format("arrow")[:]["row"].to_numpy()
    sums = np.zeros((int(rows[-1]) + 1, outputs.shape[1]), dtype=outputs.dtype)
    np.add.at(sums, rows, outputs)
    return sums


def document_ids(encoded: datasets.Dataset) -> pa.StringArray:
    """The ids of the rows that were encoded, (n,): each once, into however many windows it was cut."""
    ids = id_array(encoded)
    if "row" not in encoded.column_names:
        return ids
    rows = encoded.select_columns(["row"]).with_format("arrow")[:]["row"].to_numpy()
    return ids.take(pa.array(np.flatnonzero(np.diff(rows, prepend=-1))))


def document_sizes(encoded: datasets.Dataset) -> NDArray[np.int64]:
    """`causal.SIZES` of each document, (documents, 4)."""
    columns = encoded.select_columns(list(SIZES)).with_format("arrow")[:]
    return sum_windows(np.stack([columns[name].to_numpy() for name in SIZES], axis=1), encoded)


def target_sizes(encoded: datasets.Dataset, bytes_of_tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row the tokens that are targets, and the bytes of their text, (n, 2)."""
    sizes = []
    for batch in encoded.select_columns(["label"]).with_format("arrow").iter(batch_size=10_000):
        labels = batch["label"].combine_chunks()
        values = labels.flatten().to_numpy()
        are_targets = values != IGNORED_LABEL
        bytes_of_each = bytes_of_tokens[np.where(are_targets, values, 0)]
        of_each = np.stack([are_targets, np.where(are_targets, bytes_of_each, 0)])
        sums = np.concatenate([[[0], [0]], of_each.cumsum(axis=1)], axis=1)
        ends = np.cumsum(labels.value_lengths().to_numpy())
        sizes.append(sums[:, ends] - sums[:, ends - labels.value_lengths().to_numpy()])
    return np.concatenate(sizes, axis=1).T


def outputs(model: nn.Module, batch: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """The probability of each label, (batch, labels), or the rating, (batch, 1); see `probabilities`.

    Where the batch has targets among its tokens, (batch, 2): their negative log probability in nats, summed over a row,
    and how many of them were the most probable token. In float64, so that a confident mistake has a finite loss.
    """
    if not _has_token_targets(batch):
        return probabilities(model, _logits(model, batch)[0].double()).cpu().numpy()
    of_targets, _ = target_outputs(model, batch)
    targets = _targets(batch)
    sums = np.zeros((len(targets), 2))
    np.add.at(sums, targets.nonzero()[:, 0].cpu().numpy(), of_targets)
    return sums


def target_outputs(
    model: nn.Module, batch: Mapping[str, Tensor], state: State | None = None
) -> tuple[NDArray[np.float64], State | None]:
    """For each token that is a target, row by row, (targets, 2): nats, and whether it was the most probable token.

    And the state that a recurrent model ends in, having gone on from `state`.
    """
    logits, after = _logits(model, batch, state)
    if _takes_targets(model):
        return logits.double().cpu().numpy(), after
    references = batch["labels"][_targets(batch)]
    found = np.empty((len(references), 2))
    # Some targets at a time: in float64, the logits over a large vocabulary would not fit into memory.
    for start in range(0, len(references), _TARGETS_AT_ONCE):
        some = slice(start, start + _TARGETS_AT_ONCE)
        of_these, wanted = logits[some].double(), references[some]
        found[some, 0] = nn.functional.cross_entropy(of_these, wanted, reduction="none").cpu().numpy()
        found[some, 1] = (of_these.argmax(dim=-1) == wanted).cpu().numpy()
    return found, after
