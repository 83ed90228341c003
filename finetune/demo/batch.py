"""A file in, its rows labelled, a file out: the answers of the page's batch tab."""

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from finetune import tasks
from finetune.data.sources import PACKED, FileOptions, read_file
from finetune.demo.answers import RefusedError, loaded, told
from finetune.demo.fence import UPLOAD_BYTES
from finetune.demo.models import Predictor
from finetune.demo.words import Sentences
from finetune.errors import UserError
from finetune.predict import Classifier
from finetune.predict_file import write_table
from finetune.recipe import Data

ROWS = 10_000
"""The most rows of a file that is labelled here; `finetune predict` takes any number."""
SHOWN_ROWS = 20
_SHOWN_CHARACTERS = 200
_CHUNK = 64
_WORKBOOK_BYTES = 20_000_000
"""The most that an Excel workbook may unpack to: reading a hostile one takes a hundred times as much memory."""
KINDS = [".csv", ".tsv", ".xlsx", ".txt"]
"""What may be sent, by the ends of the names: no kind that unfolds into more than it weighs, but for workbooks."""
SEPARATOR: str = Data.model_fields["label_separator"].default
"""Between the labels of a row that gets several."""
_COLUMNS = 200
_TEXT_COLUMNS = ("text", "document", "review", "sentence", "comment", "content", "본문", "내용", "후기", "리뷰", "댓글")
"""What the column of texts is often called."""


@dataclass(frozen=True)
class Labelled:
    """The rows of a file with what a model says of them."""

    file: Path
    head: list[str]
    rows: list[list[object]]
    """The first ones, long texts cut."""
    counts: list[tuple[str, int]]
    """Rows by label, in the order of the model's labels; of a rater by rating, rounded. A row may have several."""
    note: str


def columns_of(path: Path, words: Sentences) -> tuple[list[str], str]:
    """The columns of a file, and the one that seems to hold the texts.

    Raises:
        RefusedError: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="finetune-batch-") as place:
        rows = _read(path, Path(place), [], words)
        names = list(rows.column_names)
        usual = [name for name in names if name.strip().lower() in _TEXT_COLUMNS]
        if usual:
            return names, usual[0]
        first = rows.select(range(min(50, len(rows))))
        lengths = {name: sum(len(str(value)) for value in first[name]) for name in names}
        return names, max(names, key=lengths.__getitem__)


def label_file(
    predictor: Predictor, path: Path, text_column: object, output: Path, words: Sentences
) -> Iterator[tuple[int, int] | Labelled]:
    """Label the rows of a file into `output`, a directory: rows done and all rows, again and again, then what came out.

    The file that is written has the columns of the one that came, then `predicted` and probability_NAME per label; a
    workbook stays one, anything else becomes a CSV file.

    Raises:
        RefusedError: a file or column that cannot be used, or a model that does not work.
    """
    with tempfile.TemporaryDirectory(prefix="finetune-batch-") as place:
        rows = _read(path, Path(place), [], words)
        if len(rows) > ROWS:
            raise RefusedError(words.too_many_rows.format(count=len(rows), limit=ROWS))
        if text_column not in rows.column_names:
            raise RefusedError(words.no_column.format(names=", ".join(rows.column_names)))
        if path.suffix.lower() == ".xlsx":  # errors and formulas matter in the column that is read
            rows = _read(path, Path(place), [str(text_column)], words)
        texts = ["" if value is None else str(value) for value in rows[str(text_column)]]
        classifier = loaded(predictor.classifier, predictor.name, words)
        outputs = []
        with told(words.failed, predictor.name):
            for start in range(0, len(texts), _CHUNK):
                outputs.append(classifier.classify(texts[start : start + _CHUNK]))
                yield min(start + _CHUNK, len(texts)), len(texts)
            said = np.concatenate(outputs)
            table = _with_predictions(rows.data.table.combine_chunks(), classifier, said)
            # In a directory of its own: other visitors send files of the same name.
            kind = ".xlsx" if path.suffix.lower() == ".xlsx" else ".csv"
            file = Path(tempfile.mkdtemp(dir=output)) / f"{path.stem}-labelled{kind}"
            _write(table, file)
        empty = sum(not text.strip() for text in texts)
        yield Labelled(
            file=file,
            head=table.column_names,
            rows=[[_shown(value) for value in row.values()] for row in table.slice(0, SHOWN_ROWS).to_pylist()],
            counts=_counts(classifier, said),
            note=" ".join(
                [
                    words.labelled.format(count=len(texts)),
                    *([words.first_rows.format(count=SHOWN_ROWS)] if len(texts) > SHOWN_ROWS else []),
                    *([words.empty_rows.format(count=empty)] if empty else []),
                ]
            ),
        )


def _read(path: Path, cache: Path, columns: Sequence[str], words: Sentences) -> datasets.Dataset:
    """The rows of a file; what reading leaves goes into `cache`."""
    if path.suffix.lower() not in KINDS:
        raise RefusedError(words.no_kind.format(kinds=", ".join(KINDS)))
    if not path.is_file():
        raise RefusedError(words.file_gone)
    if path.stat().st_size > UPLOAD_BYTES:
        raise RefusedError(words.large_file.format(limit=UPLOAD_BYTES // 1_000_000))
    _refuse_unfolding(path, words)
    text = path.suffix.lower() == ".txt"
    options = FileOptions(
        file_format="text" if text else "auto",
        encoding=_encoding_of(path),
        cache_directory=cache,
        workbook_bytes=_WORKBOOK_BYTES,
    )
    try:
        rows = read_file(path, options, columns)
    except UserError as error:
        # Where the file lies on the server is no visitor's concern.
        reason = str(error).replace(f"{path.parent}/", "")
        raise RefusedError(words.bad_file.format(reason=reason)) from None
    except Exception as error:  # noqa: BLE001  # its message may quote the file: to who sent it and to the terminal
        raise RefusedError(words.bad_file.format(reason=f"{path.name}: {type(error).__name__}")) from None
    return rows


def _refuse_unfolding(path: Path, words: Sentences) -> None:
    """Refuse what the reader would make much more of than was sent: packed text, a table of very many columns."""
    with path.open("rb") as file:
        first = file.read(8)
        if path.suffix.lower() == ".txt" and first.startswith(PACKED):
            raise RefusedError(words.bad_file.format(reason=f"{path.name}: packed"))
        header = first + file.readline(100_000)
    if path.suffix.lower() in (".csv", ".tsv") and max(header.count(b","), header.count(b"\t")) >= _COLUMNS:
        raise RefusedError(words.bad_file.format(reason=f"{path.name}: > {_COLUMNS} columns"))


def _encoding_of(path: Path) -> str:
    """UTF-8, unless the file says that it is UTF-16 or can only be what Korean Excel writes."""
    if path.suffix.lower() == ".xlsx":
        return "utf-8"
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    for encoding in ("utf-8", "cp949"):
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "utf-8"  # the reader says which row is wrong


def _with_predictions(table: pa.Table, classifier: Classifier, said: np.ndarray) -> pa.Table:
    taken = set(table.column_names)

    def free(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    if classifier.task == "rate":
        return table.append_column(free("predicted"), pa.array(said[:, 0]))
    labels = classifier.labels
    if classifier.task == "multi_label":
        given = [SEPARATOR.join(tasks.given_labels(row, labels)) for row in said]
    else:
        given = classifier.answers(said)
    table = table.append_column(free("predicted"), pa.array(given))
    for i, label in enumerate(labels):
        table = table.append_column(free(f"probability_{label}"), pa.array(said[:, i]))
    return table


def _write(table: pa.Table, file: Path) -> None:
    if file.suffix == ".xlsx":
        write_table(table, file)
        return
    # Excel takes a CSV file for UTF-8 only if it begins with this mark.
    lines = io.StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    file.write_bytes(lines.getvalue().encode("utf-8-sig", "replace"))


def _counts(classifier: Classifier, said: np.ndarray) -> list[tuple[str, int]]:
    if classifier.task == "rate":
        rounded = Counter(int(value) for value in np.rint(said[:, 0]))
        return [(str(rating), rounded[rating]) for rating in range(min(rounded), max(rounded) + 1)]
    if classifier.task == "multi_label":
        return list(zip(classifier.labels, (said >= tasks.THRESHOLD).sum(axis=0).tolist(), strict=True))
    found = Counter(classifier.answers(said))
    return [(label, found[label]) for label in dict.fromkeys([*classifier.labels, *sorted(found)])]


def _shown(value: object) -> object:
    if isinstance(value, float):
        return value
    text = "" if value is None else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
