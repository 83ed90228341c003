"""Batches: each row once, like lengths together, the order a function of seed and epoch alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.training.batches import cut_batch, plan_epoch

LENGTHS = np.random.default_rng(0).lognormal(3, 0.7, 10_000).astype(np.int64) + 1


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 300), batch=st.integers(1, 20), pool=st.integers(1, 5), seed=st.integers(0, 9))
def test_an_epoch_has_each_row_once_and_one_ragged_batch_at_most(rows, batch, pool, seed):
    plan = plan_epoch(LENGTHS[:rows], batch, pool, seed, epoch=0)
    assert sorted(np.concatenate(plan).tolist()) == list(range(rows))
    assert len(plan) == -(-rows // batch)
    assert sum(len(b) != batch for b in plan) <= 1


def test_the_order_depends_on_seed_and_epoch_only():
    plans = [plan_epoch(LENGTHS, 32, 50, seed, epoch) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))]
    first, again, next_epoch, other_seed = (np.concatenate(plan).tolist() for plan in plans)
    assert first == again
    assert first != next_epoch
    assert first != other_seed


def test_buckets_leave_little_padding():
    def padding(plan):
        padded = sum(len(batch) * LENGTHS[batch].max() for batch in plan)
        return 1 - LENGTHS.sum() / padded

    assert padding(plan_epoch(LENGTHS, 32, 50, 0, 0)) < 0.1
    assert padding(plan_epoch(LENGTHS, 32, 1, 0, 0)) > 0.5


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 40), micro=st.integers(1, 9), world=st.integers(1, 4))
def test_cutting_gives_every_process_as_many_micro_batches_and_every_row_once(size, micro, world):
    batch = np.arange(100, 100 + size)
    cuts = [cut_batch(batch, micro, rank, world) for rank in range(world)]
    assert len({len(cut) for cut in cuts}) == 1
    rows = [row for cut in cuts for chunk, are_targets in cut for row in chunk if are_targets]
    assert sorted(rows) == batch.tolist()
    assert all(1 <= len(chunk) <= micro for cut in cuts for chunk, _ in cut)


@pytest.mark.parametrize("epoch", [0, 3])
def test_neighbouring_steps_have_different_lengths(epoch):
    longest = [LENGTHS[batch].max() for batch in plan_epoch(LENGTHS, 32, 50, 0, epoch)]
    correlation = np.corrcoef(longest[:-1], longest[1:])[0, 1]
    assert abs(correlation) < 0.2
