"""A model over the rows of a split: batches of like length, each row exactly once, over all processes."""

from collections.abc import Callable, Mapping
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from finetune import tasks
from finetune.text.masking import IGNORED_LABEL
from finetune.text.streams import Streams

Reader = Callable[[nn.Module, Mapping[str, Tensor]], NDArray[np.float64]]
"""A model and a batch -> what is said of its rows, (rows, columns)."""


def predict_outputs(
    model: nn.Module,
    encoded: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    batch_size: int,
    advance: Callable[[int], None] = lambda rows: None,
    *,
    stream_length: int | None = None,
    read: Reader = tasks.outputs,
) -> NDArray[np.float64]:
    """What `read` says of each row, (n, columns), in the order of the rows, on every process.

    Of documents cut into windows it is the sum over the windows of each.

    The rows are sorted by length, so that there is little padding; each process takes every world-size-th batch. No
    sampler repeats rows to even out the processes, so that no row counts twice. `advance` hears of rows done.

    With a `stream_length` the rows are whole documents, read as one text by a recurrent language model, in `batch_size`
    streams and so many places at a time.
    """
    if stream_length is not None:
        return _predict_streams(model, encoded, accelerator, batch_size, stream_length, advance)
    order = np.argsort(tasks.lengths(encoded), kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    columns = encoded.select_columns(tasks.input_columns(encoded))
    results: list[NDArray[np.float64]] = []
    # The model itself, not DDP around it: DDP exchanges buffers at every forward pass, and processes with different
    # numbers of batches would wait for each other for ever.
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), accelerator.autocast():
        for indices in mine:
            batch = send_to_device(tasks.collate(columns[indices.tolist()], tokenizer), accelerator.device)
            results.append(read(model, batch))
            advance(len(indices) * accelerator.num_processes)
    model.train(was_training)
    parts = gather_object([(mine, results)]) if accelerator.num_processes > 1 else [(mine, results)]
    width = next(values.shape[1] for _, part_results in parts for values in part_results)
    outputs = np.empty((len(order), width))
    for part_batches, part_results in parts:
        for indices, values in zip(part_batches, part_results, strict=True):
            outputs[indices] = values
    return tasks.sum_windows(outputs, encoded)


def predict_one(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    text: str,
    pair: str | None = None,
    read: Reader = tasks.outputs,
) -> NDArray[np.float64]:
    """What `read` says of one text, or one pair, (1, columns).

    Without the detour over a data set, which takes many times as long as a small model does.
    """
    encoded = tokenizer(text, pair, truncation=True, max_length=max_length, return_attention_mask=False)
    return predict_encoded(model, tokenizer, {name: [ids] for name, ids in encoded.items()}, read)


def predict_encoded(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Mapping[str, Any],
    read: Reader = tasks.outputs,
) -> NDArray[np.float64]:
    """What `read` says of a few texts as the tokenizer gave them, in one batch, (texts, columns)."""
    batch = tasks.collate(encoded, tokenizer)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        outputs = read(model, send_to_device(batch, next(model.parameters()).device))
    model.train(was_training)
    return outputs


def _predict_streams(
    model: nn.Module,
    encoded: datasets.Dataset,
    accelerator: Accelerator,
    streams: int,
    length: int,
    advance: Callable[[int], None],
) -> NDArray[np.float64]:
    """What a recurrent language model says of each document, (n, 2), having read all documents as one text.

    The text is cut into `streams` that are read side by side, `length` places at a time: each but the first begins
    without what stands before it. Every process reads all of it.
    """
    text = Streams(encoded, streams)
    sums, state = np.zeros((len(encoded), 2)), None
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), accelerator.autocast():
        for start in range(0, text.length, length):
            window = text.window(start, length)
            batch = {"input_ids": torch.from_numpy(window.inputs), "labels": torch.from_numpy(window.labels)}
            found, state = tasks.target_outputs(model, send_to_device(batch, accelerator.device), state)
            np.add.at(sums, window.rows[window.labels != IGNORED_LABEL], found)
            advance(int(window.ends.sum()))
    model.train(was_training)
    return sums
