"""Readers: a Hub data set, a local CSV, TSV, JSONL, Parquet, Excel or text file, or the embedded reviews."""

import bz2
import csv
import glob
import gzip
import json
import lzma
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, Literal

import datasets
import pyarrow

from finetune.data.columns import check_columns, check_repeated, first_line
from finetune.data.exercises import EXERCISES
from finetune.errors import UserError
from finetune.recipe import EMBEDDED_PREFIX, FILE_FORMATS


@dataclass(frozen=True)
class FileOptions:
    """How to read local files."""

    file_format: str = "auto"
    encoding: str = "utf-8"
    quoting: str = "auto"
    cache_directory: Path | None = None
    """Where what is built of a file is kept; in datasets' own cache if None."""
    workbook_bytes: int = 500_000_000
    """The most that an Excel workbook may unpack to; whoever reads files of strangers wants less, tens of millions.

    Parsed, it may take many times as much, whatever it holds.
    """


def embedded_file(name: str, split: str) -> Path:
    """The file of one split of an embedded data set such as `reviews-ko`.

    Raises:
        UserError: there is no such set.
    """
    directory = Path(str(resources.files("finetune"))) / "data" / "embedded"
    names = sorted(path.name for path in directory.iterdir() if path.is_dir())
    if name not in names:
        known = ", ".join([*names, *EXERCISES])
        raise UserError(f"{EMBEDDED_PREFIX}{name}: no such embedded data set; there is {known}")
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
        raise UserError(f"data set {name!r}, split {split!r}: {first_line(error)}{hint}") from None


def read_file(path: Path, options: FileOptions, columns: Sequence[str]) -> datasets.Dataset:
    """A local file as a data set, memory-mapped but for Excel's; `columns` must be among its columns.

    Raises:
        UserError: missing, unreadable, malformed (with the row), or without a column.
    """
    if url := re.search(r"\b(https?|ftp|s3|gs|hf):/+(.*)", str(path)):
        raise UserError(f"{url[1]}://{url[2]} is a URL; download the file and name its path")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path} is a directory; name a file in it")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    _refuse_by_first_bytes(path, options)
    match _format_of(path, options.file_format):
        case "csv":
            rows = _read_delimited(path, ",", options, quoted=options.quoting != "none", columns=columns)
        case "tsv":
            rows = _read_delimited(path, "\t", options, quoted=options.quoting == "minimal", columns=columns)
        case "jsonl":
            rows = _read_jsonl(path, options, columns)
        case "text":
            rows = _read_text(path, options)
        case "xlsx":
            from finetune.data.workbook import read_workbook  # here: its library is slow to load

            rows = read_workbook(path, columns, options.workbook_bytes)
        case _:
            rows = _build("parquet", path, cache_dir=_cache(options))
            _check_parquet_text(path, rows, columns)
    check_columns(path, rows.column_names, columns)
    return rows


def _format_of(path: Path, file_format: str) -> str:
    if file_format != "auto":
        return file_format
    try:
        return FILE_FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(sorted(FILE_FORMATS))
        raise UserError(f"{path}: unknown kind of file {path.suffix!r} ({known}); set data.file_format") from None


# --- what a file is not -----------------------------------------------------------------------------------------------

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
PACKED = tuple(_COMPRESSED)
"""How files begin that are unpacked while they are read."""


def _refuse_by_first_bytes(path: Path, options: FileOptions) -> None:
    """Refuse what is plainly no data; compressed text is read as it is."""
    with path.open("rb") as file:
        first = file.read(4096)
    for magic, name in _COMPRESSED.items():
        if first.startswith(magic):
            if options.file_format == "text" and name != "zstd":
                return
            raise UserError(f"{path} is compressed with {name}; unpack it first")
    if first.startswith(b"\xd0\xcf\x11\xe0"):
        raise UserError(
            f"{path} is an Excel workbook, an old one (.xls) or one with a password; save it as .xlsx without a "
            "password, or as CSV UTF-8"
        )
    if first.startswith(b"PK\x03\x04"):
        if options.file_format == "xlsx" or (options.file_format == "auto" and path.suffix.lower() == ".xlsx"):
            return
        if any(name.startswith("xl/") for name in _names_in_zip(path)):
            raise UserError(f"{path} is an Excel workbook; save it as .xlsx, and leave data.file_format at auto")
        raise UserError(f"{path} is a zip archive; unpack it first")
    if first.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise UserError(f"{path} is a web page, not data; was the file really downloaded?")
    if _is_utf8(options.encoding) and (guess := _utf16_variant(first)):
        raise UserError(f"{path}: not utf-8 text, it looks like {guess}; set --data.encoding {guess}")


def _names_in_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return []


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")


def _utf16_variant(first: bytes) -> str | None:
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if first.startswith(b"PAR1"):
        return None
    # ASCII in UTF-16 has a zero in every other byte; a separator and a line end there are in any file.
    even, odd = first[0::2].count(0), first[1::2].count(0)
    if max(even, odd) > len(first) / 10 and max(even, odd) > 4 * min(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def _wrong_encoding(path: Path, encoding: str) -> UserError:
    """What to say of a file that is not text in `encoding`: the row, and a guess."""
    where, broken = str(path), b""
    # A line of UTF-16 or UTF-32 cannot be found by its bytes.
    if not encoding.lower().startswith(("utf-16", "utf-32", "utf_16", "utf_32")):
        with _open(path) as file:
            for row, line in enumerate(file, start=1):
                try:
                    line.decode(encoding)
                except UnicodeError:
                    where, broken = f"{path}, row {row}", line
                    break
    try:
        letters = [character for character in broken.decode("cp949") if ord(character) > 127]
    except UnicodeError:
        letters = []
    if letters and encoding != "cp949" and sum("가" <= letter <= "힣" for letter in letters) > 0.7 * len(letters):
        return UserError(f"{where}: not {encoding} text, it looks like cp949; set --data.encoding cp949")
    return UserError(f"{where}: not {encoding} text; name its encoding, such as --data.encoding cp949, or mend the row")


# --- CSV and TSV ------------------------------------------------------------------------------------------------------


def _read_delimited(
    path: Path, delimiter: str, options: FileOptions, *, quoted: bool, columns: Sequence[str]
) -> datasets.Dataset:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    encoding = "utf-8-sig" if _is_utf8(options.encoding) else options.encoding
    csv.field_size_limit(sys.maxsize)  # the default refuses a text of more than 131,072 characters
    ragged: tuple[int, int] | None = None
    count = 0
    try:
        with path.open(encoding=encoding, newline="") as lines:
            records = csv.reader(lines, delimiter=delimiter, quoting=quoting)
            header = next(records, [])
            # One pass over the file, so that a wrong encoding or a ragged row is found before anything is built, and by
            # its number: the builder fills short rows up in silence.
            for number, record in enumerate(records, start=2):
                count += bool(record)
                if record and len(record) != len(header) and ragged is None:
                    ragged = number, len(record)
    except LookupError:
        raise UserError(f"data.encoding: no encoding named {options.encoding!r}") from None
    except UnicodeError:
        raise _wrong_encoding(path, options.encoding) from None
    except csv.Error as error:
        raise UserError(f"{path}, line {records.line_num}: {error}") from None
    _check_header(path, header, delimiter, columns)
    if quoted and (row := _unclosed_quote(path, encoding, delimiter)) is not None:
        raise UserError(
            f"{path}, row {row}: a quote mark opens and never closes; close it, or set --data.quoting none where quote "
            "marks are part of the text"
        )
    if ragged is not None:
        number, fields = ragged
        raise UserError(
            f"{path}, row {number}: {fields} fields where the header has {len(header)}; mend or remove the row"
        )
    if count == 0:
        raise UserError(f"{path}: no rows below the header")
    # A table that was saved with its row numbers has a column without a name.
    names = [name or f"column {number}" for number, name in enumerate(header, start=1)]
    # Everything as text: what a label means is decided by the recipe, not by what a column looks like. Without these
    # options "NA", "null" and "" would silently become missing values.
    return _build(
        "csv",
        path,
        sep=delimiter,
        quoting=int(quoting),
        keep_default_na=False,
        encoding=encoding,
        names=names,
        header=0,
        features=datasets.Features({name: datasets.Value("string") for name in names}),
        cache_dir=_cache(options),
    )


def _check_header(path: Path, header: Sequence[str], delimiter: str, columns: Sequence[str]) -> None:
    check_repeated(path, header, 1)
    if header and header[0].lower().startswith("sep="):
        raise UserError(f"{path}, row 1: {f'sep={delimiter}'!r} is Excel's own; remove it")
    if len(header) == 1 and (others := [mark for mark in ";|,\t" if mark in header[0]]):
        hint = "set --data.file_format tsv" if others[0] == "\t" else "save it with commas, or with tabs as .tsv"
        present = f"no column {columns[0]!r} among {header[0]!r}" if columns else repr(header[0])
        raise UserError(f"{path}, row 1: {present}; fields seem to be separated by {others[0]!r}: {hint}")
    check_columns(path, header, columns)


def _unclosed_quote(path: Path, encoding: str, delimiter: str) -> int | None:
    """The row in which a quote mark opens that never closes."""
    row = 1
    with path.open(encoding=encoding, newline="") as lines:
        try:
            for _ in csv.reader(lines, delimiter=delimiter, strict=True):
                row += 1
        except csv.Error as error:
            return row if "end of data" in str(error) else None
    return None


# --- JSON -------------------------------------------------------------------------------------------------------------


def _read_jsonl(path: Path, options: FileOptions, columns: Sequence[str]) -> datasets.Dataset:
    encoding = options.encoding
    kinds: dict[str, tuple[str, int]] = {}
    number = 0
    try:
        for number, value in _json_values(path, "utf-8-sig" if _is_utf8(encoding) else encoding):
            if not isinstance(value, dict):
                shown = json.dumps(value, ensure_ascii=False)[:40]
                raise UserError(f"{path}, row {number}: a JSON object is needed, not {shown}")
            _check_record(path, number, value, columns, kinds)
    except LookupError:
        raise UserError(f"data.encoding: no encoding named {encoding!r}") from None
    except UnicodeError:
        raise _wrong_encoding(path, encoding) from None
    if columns and not kinds:
        raise UserError(f"{path}: no row has {' and '.join(map(repr, columns))}")
    if not number:
        raise UserError(f"{path}: no row in it")
    return _build("json", path, encoding=encoding, cache_dir=_cache(options))


def _json_values(path: Path, encoding: str) -> Iterator[tuple[int, Any]]:
    """(row number, value) for each line, or for each element of a file that is one list."""
    with path.open(encoding=encoding) as lines:
        if lines.read(1) == "[":
            lines.seek(0)
            try:
                values = json.load(lines)
            except json.JSONDecodeError as problem:
                raise UserError(f"{path}, line {problem.lineno}: not JSON: {problem.msg}") from None
            yield from enumerate(values, start=1)
            return
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as problem:
                raise UserError(f"{path}, row {number}: not JSON: {problem.msg}; one JSON object a line") from None


def _check_record(
    path: Path, number: int, record: dict[str, Any], columns: Sequence[str], kinds: dict[str, tuple[str, int]]
) -> None:
    """Refuse what the builder would change in silence or fail at without a row; `kinds` remembers what came before."""
    for name, value in record.items():
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise UserError(
                    f"{path}, row {number}: half of a surrogate pair in {name!r}, a cut emoji perhaps; mend the row"
                ) from None
    for name in columns:
        value = record.get(name)
        if value is None:
            kinds.setdefault(name, ("", number))
            continue
        kind = _json_kind(value)
        before, row = kinds.get(name, ("", number))
        if before and before != kind:
            raise UserError(
                f"{path}, row {number}: {name!r} is {kind} here and {before} in row {row}; write it in one way"
            )
        kinds[name] = (kind, number if not before else row)


def _json_kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return kinds[type(value)]


# --- text -------------------------------------------------------------------------------------------------------------


def _read_text(path: Path, options: FileOptions) -> datasets.Dataset:
    """One text a line, as the column `text`; compressed by gzip, bzip2 or xz, or not."""
    encoding = options.encoding
    read_as = "utf-8-sig" if _is_utf8(encoding) else encoding  # without the mark that Windows puts first
    try:
        count = sum(1 for _ in _lines_of(path, read_as))  # a wrong encoding is found before anything is built
    except LookupError:
        raise UserError(f"data.encoding: no encoding named {encoding!r}") from None
    except UnicodeError:
        raise _wrong_encoding(path, encoding) from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{path}: damaged: {first_line(error)}; download it again") from None
    if count == 0:
        raise UserError(f"{path}: no line in it")
    state = path.stat()
    # The cache knows a file by what is given here.
    source = {"path": path, "encoding": read_as, "changed": state.st_mtime_ns, "size": state.st_size}
    features = datasets.Features({"text": datasets.Value("string")})
    return datasets.Dataset.from_generator(_text_rows, features=features, gen_kwargs=source, cache_dir=_cache(options))


def _text_rows(path: Path, encoding: str, changed: int, size: int) -> Iterator[dict[str, str]]:
    for line in _lines_of(path, encoding):
        yield {"text": line.rstrip("\n")}


def _lines_of(path: Path, encoding: str) -> Iterator[str]:
    with _open(path, encoding) as lines:
        yield from lines


def _open(path: Path, encoding: str | None = None) -> IO[Any]:
    """A file for reading, as text where an encoding is given, unpacked where its first bytes say that it is packed."""
    with path.open("rb") as file:
        first = file.read(8)
    packed = next((name for magic, name in _COMPRESSED.items() if first.startswith(magic)), None)
    opener: Any = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}.get(packed or "", open)
    return opener(path, "rb") if encoding is None else opener(path, "rt", encoding=encoding)


def _check_parquet_text(path: Path, rows: datasets.Dataset, columns: Sequence[str]) -> None:
    """Parquet's writers do not check what they call text; reading it would fail rows later, without a name."""
    wanted = rows.select_columns([name for name in columns if name in rows.column_names]).with_format("arrow")
    done = 0
    for batch in wanted.iter(batch_size=10_000):
        for name in batch.column_names:
            try:
                batch[name].validate(full=True)
            except pyarrow.ArrowInvalid as error:
                rows_here = f"rows {done + 1:,} to {done + len(batch):,}"
                raise UserError(f"{path}, {rows_here}: {name!r} is not UTF-8 text ({first_line(error)})") from None
        done += len(batch)


def _cache(options: FileOptions) -> str | None:
    return None if options.cache_directory is None else str(options.cache_directory)


def _build(builder: str, path: Path, **options: Any) -> datasets.Dataset:
    try:
        # A name is no pattern: "reviews[1].csv" is what browsers call a second download.
        return datasets.load_dataset(builder, data_files=[glob.escape(str(path))], split="train", **options)
    except (datasets.exceptions.DatasetsError, pyarrow.ArrowException, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise UserError(f"{path}: {first_line(cause)}") from None
