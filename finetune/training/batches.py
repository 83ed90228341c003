"""The batches of an epoch: rows of like length together, in an order that depends on seed and epoch alone.

A global batch is planned once and then cut: into the shares of the processes, and each share into micro batches. How it
is cut changes no step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from finetune import tasks
from finetune.text import Masker, NoiseAugmenter, ScheduledSampler, SubwordSampler

Draw = NoiseAugmenter | SubwordSampler | Masker | ScheduledSampler
"""What makes a row's inputs anew in every epoch."""

Indices = NDArray[np.int64]
MicroBatch = tuple[list[int], bool]
"""Row numbers, and whether they are targets; rows that are not keep a process in step that has no rows left."""


@dataclass
class Step:
    """One optimizer step: the rows of the global batch, and this process's micro batches as arguments of `forward`."""

    rows: Indices
    micro_batches: list[dict[str, Tensor]]
    row_count: int = 0
    """Rows that the step is done with."""
    token_count: int = 0
    """Their tokens, special ones included, padding not; with subword sampling those of the unsampled text."""
    targets: int = 0
    """Targets of the whole step, over all processes; the loop counts them."""
    mean_loss: float = float("nan")
    """Loss per target; the loop sets it."""


def plan_epoch(lengths: Indices, batch_size: int, pool_batches: int, seed: int, epoch: int) -> list[Indices]:
    """The global batches of an epoch: each row once, `batch_size` rows each but for one remainder.

    Rows are shuffled, sorted by length within pools of `pool_batches` batches, cut, and the batches shuffled: what is
    left of padding is a few per cent, and neighbouring steps are not of one length.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    pool = batch_size * pool_batches
    batches: list[Indices] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def cut_batch(batch: Indices, micro_batch_size: int, rank: int, world_size: int) -> list[MicroBatch]:
    """This process's micro batches of a global batch; every process gets equally many, so that none waits for ever."""
    share = batch[rank::world_size].tolist()
    largest_share = -(-len(batch) // world_size)
    steps = -(-largest_share // micro_batch_size)
    micro = [share[i * micro_batch_size : (i + 1) * micro_batch_size] for i in range(steps)]
    return [(rows, True) if rows else ([int(batch[0])], False) for rows in micro]


class _Rows(Dataset[dict[str, Tensor]]):
    """Encoded rows, fetched and collated a micro batch at a time; the draws of an epoch are made on the way."""

    def __init__(self, encoded: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, draws: Sequence[Draw]) -> None:
        left_out = set(tasks.BOOKKEEPING)
        if any(isinstance(draw, SubwordSampler | NoiseAugmenter) for draw in draws):
            left_out |= {"input_ids", "token_type_ids"}  # they come from the text, anew
        self.columns = encoded.select_columns([name for name in encoded.column_names if name not in left_out])
        self.tokenizer = tokenizer
        self.draws = draws
        self.epoch = 0

    def __getitem__(self, micro_batch: MicroBatch) -> dict[str, Tensor]:
        rows, are_targets = micro_batch
        columns = self.columns[rows]
        for draw in self.draws:
            columns = draw.encode(columns, rows, self.epoch)
        batch = tasks.collate(columns, self.tokenizer)
        if not are_targets:
            batch["labels"] = tasks.without_targets(batch["labels"])
        return batch


class EpochBatches:
    """The training rows as steps: for each optimizer step this process's micro batches."""

    carries_state = False
    """Whether a step's rows go on from where the last step's ended, as `StreamBatches`' do."""

    def __init__(
        self,
        encoded: datasets.Dataset,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int,
        micro_batch_size: int,
        pool_batches: int,
        seed: int,
        rank: int,
        world_size: int,
        workers: int,
        draws: Sequence[Draw] = (),
    ) -> None:
        self.rows = _Rows(encoded, tokenizer, draws)
        self.ids = encoded.select_columns(["id"])
        self.lengths = tasks.lengths(encoded)
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.pool_batches = pool_batches
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.workers = workers

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def row_ids(self, rows: Indices) -> list[str]:
        """The ids of rows, as they stand in the data."""
        return list(self.ids[rows.tolist()]["id"])

    def steps(self, epoch: int, first_step: int = 0) -> Iterator[Step]:
        """The steps of an epoch from `first_step` on."""
        plan = plan_epoch(self.lengths, self.batch_size, self.pool_batches, self.seed, epoch)[first_step:]
        planned_size = self.micro_batch_size
        self.rows.epoch = epoch  # before workers get their copy of it
        cut = [cut_batch(batch, planned_size, self.rank, self.world_size) for batch in plan]
        sampler: Sequence[MicroBatch] = [micro for step in cut for micro in step]
        loader = DataLoader(
            self.rows,
            sampler=sampler,  # its items are whole micro batches, not row numbers
            batch_size=None,
            num_workers=self.workers,
            # A generator of its own: an iterator would else draw from the one that dropout draws from.
            generator=torch.Generator().manual_seed(self.seed),
        )
        batches = iter(loader)
        for rows, micro in zip(plan, cut, strict=True):
            tokens = int(self.lengths[rows].sum())
            step = Step(rows, [next(batches) for _ in micro], row_count=len(rows), token_count=tokens)
            while planned_size > self.micro_batch_size and _largest(step.micro_batches) > self.micro_batch_size:
                step.micro_batches = halve(step.micro_batches)  # memory ran out since the epoch was planned
            yield step


def halve(micro_batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The same rows in micro batches of half the size."""
    halves: list[dict[str, Tensor]] = []
    for batch in micro_batches:
        rows = len(batch["labels"])
        middle = -(-rows // 2)
        halves.append({name: tensor[:middle] for name, tensor in batch.items()})
        if rows > middle:
            halves.append({name: tensor[middle:] for name, tensor in batch.items()})
    return halves


def _largest(micro_batches: list[dict[str, Tensor]]) -> int:
    return max(len(batch["labels"]) for batch in micro_batches)
