"""Readers: a Hub data set, a local CSV, TSV, JSONL or Parquet file, or the embedded reviews, all through `datasets`."""

import csv
import difflib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow

from finetune.errors import UserError
from finetune.recipe import EMBEDDED_PREFIX, FILE_FORMATS


@dataclass(frozen=True)
class FileOptions:
    """How to read local files."""

    file_format: str = "auto"
    encoding: str = "utf-8"
    quoting: str = "auto"


def embedded_file(name: str, split: str) -> Path:
    """The file of one split of an embedded data set such as `reviews-ko`.

    Raises:
        UserError: there is no such set.
    """
    directory = Path(str(resources.files("finetune"))) / "data" / "embedded"
    names = sorted(path.name for path in directory.iterdir() if path.is_dir())
    if name not in names:
        raise UserError(f"{EMBEDDED_PREFIX}{name}: no such embedded data set; there is {', '.join(names)}")
    return directory / name / f"{split}.tsv"


def read_hub(name: str, config: str | None, revision: str | None, split: str) -> datasets.Dataset:
    """One split of a data set of the Hub, materialised.

    Raises:
        UserError: the Hub or the data set cannot be reached, or has no such split.
    """
    try:
        return datasets.load_dataset(name, config, revision=revision, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        hint = "; HF_HUB_OFFLINE is set" if offline else ""
        raise UserError(f"data set {name!r}, split {split!r}: {_first_line(error)}{hint}") from None


def read_file(path: Path, options: FileOptions, columns: Sequence[str]) -> datasets.Dataset:
    """A local file as a memory-mapped data set; `columns` must be among its columns.

    Raises:
        UserError: missing, unreadable, malformed (with the row), or without a column.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path} is a directory; name a file in it")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    match _format_of(path, options.file_format):
        case "csv":
            rows = _read_delimited(path, ",", options, quoted=options.quoting != "none", columns=columns)
        case "tsv":
            rows = _read_delimited(path, "\t", options, quoted=options.quoting == "minimal", columns=columns)
        case "jsonl":
            rows = _read_jsonl(path, options.encoding)
        case _:
            rows = _build("parquet", path)
    _check_columns(path, rows.column_names, columns)
    return rows


def _format_of(path: Path, file_format: str) -> str:
    if file_format != "auto":
        return file_format
    try:
        return FILE_FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(sorted(FILE_FORMATS))
        raise UserError(f"{path}: unknown kind of file {path.suffix!r} ({known}); set data.file_format") from None


def _read_delimited(
    path: Path, delimiter: str, options: FileOptions, *, quoted: bool, columns: Sequence[str]
) -> datasets.Dataset:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    encoding = "utf-8-sig" if options.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else options.encoding
    csv.field_size_limit(sys.maxsize)  # the default refuses a text of more than 131,072 characters
    ragged: tuple[int, int] | None = None
    try:
        with path.open(encoding=encoding, newline="") as lines:
            records = csv.reader(lines, delimiter=delimiter, quoting=quoting)
            header = next(records, [])
            # One pass over the file, so that a wrong encoding or a ragged row is found before anything is built, and by
            # its number: the builder fills short rows up in silence.
            for number, record in enumerate(records, start=2):
                if record and len(record) != len(header) and ragged is None:
                    ragged = number, len(record)
    except LookupError:
        raise UserError(f"data.encoding: no encoding named {options.encoding!r}") from None
    except UnicodeError:
        raise UserError(
            f"{path}: not {options.encoding} text; name its encoding, such as --data.encoding cp949"
        ) from None
    except csv.Error as error:
        raise UserError(f"{path}, line {records.line_num}: {error}") from None
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise UserError(f"{path}, row 1: the column {repeated[0]!r} stands twice; rename one")
    _check_columns(path, header, columns)
    if ragged is not None:
        number, fields = ragged
        raise UserError(
            f"{path}, row {number}: {fields} fields where the header has {len(header)}; mend or remove the row"
        )
    # Everything as text: what a label means is decided by the recipe, not by what a column looks like. Without these
    # options "NA", "null" and "" would silently become missing values.
    return _build(
        "csv",
        path,
        sep=delimiter,
        quoting=int(quoting),
        keep_default_na=False,
        encoding=encoding,
        features=datasets.Features({name: datasets.Value("string") for name in header}),
    )


def _read_jsonl(path: Path, encoding: str) -> datasets.Dataset:
    try:
        return _build("json", path, encoding=encoding)
    except UserError as error:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line.decode(encoding))
                except (UnicodeDecodeError, json.JSONDecodeError) as problem:
                    raise UserError(f"{path}, row {number}: not JSON: {_first_line(problem)}") from None
                if not isinstance(value, dict):
                    raise UserError(f"{path}, row {number}: a JSON object is needed, not {line[:40]!r}") from None
        raise UserError(f"{path}: {error}; give each column one type in all rows") from None


def _build(builder: str, path: Path, **options: Any) -> datasets.Dataset:
    try:
        return datasets.load_dataset(builder, data_files=[str(path)], split="train", **options)
    except (datasets.exceptions.DatasetsError, pyarrow.ArrowException, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise UserError(f"{path}: {_first_line(cause)}") from None


def _check_columns(path: Path, present: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{path}: no column {name!r} among {', '.join(map(repr, present))}{hint}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
