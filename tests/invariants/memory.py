"""Memory while a file of many rows is scored and labelled: it must not grow with the rows.

    python tests/invariants/memory.py --rows 1000000

Trains a small LSTM, writes a file of that many rows and runs `finetune predict --input` and `finetune evaluate --data`
on it. Prints the memory of each process that is its own (RssAnon of /proc: what is mapped from files is left out, the
system takes that back when it needs it) in MiB at ten moments, and its peak.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from reviews import review_rows, small_recipe

from finetune.recipe import dump_recipe

COMMANDS = ("predict", "evaluate")


def prepare(directory: Path) -> Path:
    """A trained run."""
    recipe = directory / "recipe.yaml"
    recipe.write_text(dump_recipe(small_recipe(directory, output_dir=str(directory / "runs"))), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "finetune", "train", str(recipe)], check=True, capture_output=True)
    return directory / "runs" / "small"


def write_rows(path: Path, count: int) -> Path:
    """A CSV file of `count` different rows."""
    rows = review_rows(1000)
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for number in range(count):
            text, label = rows[number % len(rows)]
            file.write(f"{text} {number}번,{label}\n")
    return path


def own_memory(pid: int) -> int:
    """Bytes of a process's memory that is no file's; 0 where the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)


def measure(command: str, run: Path, source: Path, directory: Path) -> list[tuple[float, int]]:
    """(seconds, bytes) through one command over `source`."""
    target = directory / (f"{command}-{source.stem}" + (".parquet" if command == "predict" else ""))
    file = ["--input", str(source)] if command == "predict" else ["--data", str(source)]
    words = [sys.executable, "-m", "finetune", command, str(run), *file, "--output", str(target)]
    # The cache of `datasets` goes with the directory: a second look at a file must not find the first one's.
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    started, curve = time.monotonic(), []
    while process.poll() is None:
        curve.append((time.monotonic() - started, own_memory(process.pid)))
        time.sleep(0.2)
    assert process.returncode == 0, process.communicate()[1]
    return curve


def main() -> int:
    """Print the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        run = prepare(directory)
        for rows in (options.rows // 10, options.rows):
            source = write_rows(directory / f"rows-{rows}.csv", rows)
            for command in COMMANDS:
                curve = measure(command, run, source, directory)
                moments = [curve[round(i * (len(curve) - 1) / 9)] for i in range(10)]
                shown = " ".join(f"{size / 2**20:.0f}" for _, size in moments)
                peak = max(size for _, size in curve) / 2**20
                print(f"{command:9} {rows:9,} rows {curve[-1][0]:6.0f} s  MiB: {shown}  peak {peak:.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
