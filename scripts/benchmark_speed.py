"""Measure the ways to keep padding out of a bidirectional LSTM: forward and backward seconds, interleaved, as ratios.

    python scripts/benchmark_speed.py --rows 64 --rounds 7 --output reports/benchmark_speed.json

`gathered` is what this project does; `packed` is PyTorch's packed sequences; `equal length` needs batches of rows of
exactly one length; `ignoring padding` is wrong (the backward direction reads padding first) and stands here as a speed
to compare with. The lengths are those of short reviews in length-bucketed batches.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from finetune.models.recurrent import gather_positions, reversed_positions
from finetune.training.batches import plan_epoch


def ways(size: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Each way as a function of (states (batch, length, size), lengths (batch,)) -> (batch, length, 2 * size)."""
    forward_lstm, backward_lstm = (nn.LSTM(size, size, batch_first=True) for _ in range(2))
    both = nn.LSTM(size, size, batch_first=True, bidirectional=True)

    def gathered(states: Tensor, lengths: Tensor) -> Tensor:
        reverse = reversed_positions(lengths, states.shape[1])
        backward = backward_lstm(gather_positions(states, reverse))[0]
        return torch.cat([forward_lstm(states)[0], gather_positions(backward, reverse)], dim=-1)

    def packed(states: Tensor, lengths: Tensor) -> Tensor:
        output = both(pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False))[0]
        return pad_packed_sequence(output, batch_first=True)[0]

    def ignoring_padding(states: Tensor, lengths: Tensor) -> Tensor:
        return both(states)[0]

    return {"gathered": gathered, "packed": packed, "ignoring padding": ignoring_padding}


def measure(rows: int, size: int, rounds: int, threads: int) -> dict[str, object]:
    """Seconds per row of each way, medians over `rounds` interleaved rounds of twelve batches."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(2.7, 0.6, 50 * rows).astype(np.int64) + 2, 3, 128)
    buckets = [lengths[batch] for batch in plan_epoch(lengths, rows, 50, seed=0, epoch=0)][:12]
    functions = ways(size)
    seconds: dict[str, list[float]] = {name: [] for name in (*functions, "equal length")}
    for _ in range(rounds + 1):
        for name in seconds:
            function = functions["ignoring padding" if name == "equal length" else name]
            started = time.perf_counter()
            for bucket in buckets:
                # Batches of one exact length have the same number of tokens here, so that only the padding differs.
                exact = np.full(rows, round(bucket.mean())) if name == "equal length" else bucket
                states = torch.randn(rows, int(exact.max()), size, requires_grad=True)
                function(states, torch.from_numpy(exact)).sum().backward()
            seconds[name].append((time.perf_counter() - started) / (len(buckets) * rows))
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(values[1:], seconds["gathered"][1:], strict=True))
        for name, values in seconds.items()
    }
    return {
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": threads,
        "rows_per_batch": rows,
        "hidden_size": size,
        "rounds": rounds,
        "milliseconds_per_row": {name: 1000 * value for name, value in medians.items()},
        "time_against_gathered": ratios,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="rows per batch")
    parser.add_argument("--size", type=int, default=128, help="embedding and hidden size")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds, after one that does not count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    figures = measure(options.rows, options.size, options.rounds, options.threads)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
