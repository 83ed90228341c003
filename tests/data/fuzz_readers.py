"""Throw broken files at the readers: whatever comes, it is rows or one line, never a traceback.

    python tests/data/fuzz_readers.py --minutes 30

Takes files of every format and breaks them (bytes flipped, cut, repeated, joined, in another encoding, under another
name), then reads them as `finetune doctor FILE` does. What ends in anything but rows or a UserError of one line is kept
beside the report, and the exit code is 1.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import datasets
import pandas as pd
from reviews import review_rows

from finetune.doctor import diagnose
from finetune.errors import UserError
from finetune.recipe import recipe_for_file

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")
ENCODINGS = ("utf-8", "utf-8-sig", "cp949", "utf-16", "utf-16-le", "latin-1", "shift_jis", "utf-7")
SPICES = ('"', ",", "\t", "\n", "\r", "\0", "\\", "{", "}", "[", "]", "null", "NaN", "1e999", "﻿", "😀", "\ud83d", "가",
          "\x1a", "\x85", "\u2028", "=1+1", "-1", "''", '""', "\\u0000", "\\ud800", "true", "9" * 30)  # fmt: skip


def seed_file(chance: random.Random, scratch: Path) -> tuple[str, bytes]:
    """A good file of some format: (suffix, bytes)."""
    rows = review_rows(chance.randint(4, 12), seed=chance.randint(0, 99))
    suffix = chance.choice(SUFFIXES)
    if suffix == ".parquet":
        path = scratch / "seed.parquet"
        frame = pd.DataFrame(rows, columns=["text", "label"])
        frame.to_parquet(path)
        return suffix, path.read_bytes()
    if suffix in (".jsonl", ".json"):
        records = [{"text": text, "label": label} for text, label in rows]
        text = "\n".join(json.dumps(record, ensure_ascii=chance.random() < 0.5) for record in records)
        if chance.random() < 0.2:
            text = json.dumps(records, indent=chance.choice([None, 2]))
    else:
        mark = "," if suffix == ".csv" else "\t"
        text = "\n".join(mark.join(row) for row in [("text", "label"), *rows])
    return suffix, text.encode("utf-8")


def break_text(chance: random.Random, text: str) -> str:
    place = chance.randint(0, len(text))
    match chance.randint(0, 4):
        case 0:
            return text[:place] + chance.choice(SPICES) + text[place:]
        case 1:
            return text[:place] + text[place + chance.randint(1, 20) :]
        case 2:
            return text[:place] + text[: chance.randint(0, 200)] + text[place:]
        case 3:
            return text.replace(chance.choice(',\t\n"{:'), chance.choice(SPICES), chance.randint(1, 5))
        case _:
            return text[:place]


def break_bytes(chance: random.Random, content: bytes) -> bytes:
    """The same bytes with some damage."""
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        if chance.random() < 0.7:
            text = content.decode("utf-8", "surrogateescape")
            content = break_text(chance, text).encode("utf-8", "surrogatepass" if chance.random() < 0.5 else "replace")
        else:
            changed = bytearray(content or b"\0")
            for _ in range(chance.randint(1, 3)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            content = bytes(changed)
    if chance.random() < 0.1:
        content = content.decode("utf-8", "replace").encode(chance.choice(ENCODINGS), "replace")
    return content


def attempt(path: Path, overrides: list[tuple[str, str]]) -> str:
    """What came of a file: "rows" or "refused"; raises whatever else happens."""
    try:
        report = diagnose(recipe_for_file(str(path), overrides))
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
        return "refused"
    json.dumps(report)
    return "rows"


def main() -> int:
    """Run for the minutes given; exit code 1 if anything fell through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where files that fell through go")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    chance, counts, number = random.Random(options.seed), Counter[str](), 0
    scratch = Path(tempfile.mkdtemp())
    datasets.config.HF_DATASETS_CACHE = scratch / "cache"  # not the user's
    end = time.monotonic() + options.minutes * 60
    while time.monotonic() < end:
        number += 1
        suffix, content = seed_file(chance, scratch)
        content = break_bytes(chance, content)
        if chance.random() < 0.1:
            suffix = chance.choice(SUFFIXES)
        path = scratch / f"case-{number}{suffix}"
        path.write_bytes(content)
        overrides = [("data.encoding", chance.choice(ENCODINGS))] if chance.random() < 0.1 else []
        overrides += [("data.quoting", chance.choice(["minimal", "none"]))] if chance.random() < 0.2 else []
        try:
            counts[attempt(path, overrides)] += 1
        except Exception as error:  # noqa: BLE001  # whatever falls through is what is looked for
            counts["fell through"] += 1
            options.keep.mkdir(exist_ok=True)
            (options.keep / path.name).write_bytes(content)
            print(f"{path.name} {overrides}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        path.unlink()
    shutil.rmtree(scratch)
    print(f"{number:,} files: {', '.join(f'{count:,} {name}' for name, count in counts.most_common())}")
    return 1 if counts["fell through"] else 0


if __name__ == "__main__":
    sys.exit(main())
