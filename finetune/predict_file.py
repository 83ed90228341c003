"""What a model says of a whole file: in chunks, so that memory stays flat and a killed run goes on where it was."""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from finetune import tasks
from finetune.data.sources import FileOptions, read_file
from finetune.errors import UserError
from finetune.predict import load_classifier
from finetune.progress import ProgressBar, say
from finetune.recipe import Data
from finetune.run import run_of

_WRITABLE = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
# What a sheet of Excel holds: rows with the header, and characters (of UTF-16) of a cell.
_SHEET_ROWS = 1_048_576
_CELL_CHARACTERS = 32_767
# What XML cannot hold, and what Excel takes for an escaped character: _x000D_ is the end of a line on old Macs.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ESCAPE = re.compile("_(?=x[0-9A-Fa-f]{4}_)")


def predict_file(
    run_or_model: str, source: Path, output: Path, text_column: str = "text", chunk_rows: int = 10_000
) -> int:
    """Label every row of `source`; returns the number of rows.

    `output` gets one row for each, in order: row (from 0), text, label, probability_NAME per label (or rating); where
    a row may have several labels, they stand in `predicted`, parted as in the training data. Where the model has a
    novelty detector, `novelty` is the share of the validation texts that are less so than the row's, and `is_novel`
    whether that reaches the threshold. The file's format goes by its name. Chunks that are done lie beside it until all
    are; the same command goes on from them.
    Under torchrun the processes share the rows of each chunk.

    Raises:
        UserError: an `output` that exists or cannot be written in its format, or anything wrong with model or file.
    """
    check_output(output)
    rows = read_file(source, FileOptions(), [text_column]).select_columns([text_column])
    if text_column != "text":
        rows = rows.rename_column(text_column, "text")
    classifier = load_classifier(run_or_model)
    accelerator = Accelerator(cpu=classifier.model.device.type == "cpu")
    separator = label_separator(run_or_model)

    def label(chunk: datasets.Dataset, start: int) -> pa.Table:
        outputs, novel = classifier.classify_rows_with_novelty(chunk)
        columns: dict[str, object] = {
            "row": range(start, start + len(chunk)),
            "text": chunk.with_format("arrow")[:]["text"],
        }
        if classifier.task == "rate":
            columns["rating"] = outputs[:, 0]
        elif classifier.task == "multi_label":
            columns["predicted"] = [separator.join(tasks.given_labels(row, classifier.labels)) for row in outputs]
            columns |= {f"probability_{name}": outputs[:, i] for i, name in enumerate(classifier.labels)}
        else:
            columns["label"] = classifier.answers(outputs)
            columns |= {f"probability_{name}": outputs[:, i] for i, name in enumerate(classifier.labels)}
        if novel is not None:
            columns |= {"novelty": novel, "is_novel": classifier.is_novel(novel)}
        return pa.table(columns)

    claim = {"source": sha256(source), "model": fingerprint(classifier.model), "text_column": text_column}
    if classifier.novelty is not None:
        claim["novelty"] = fingerprint_of(classifier.novelty.tensors)
    write_in_chunks(rows, output, claim, chunk_rows, label, "predicting", accelerator)
    return len(rows)


def label_separator(run_or_model: str) -> str:
    """What parts several labels in one text: a run's own, else the default."""
    run = run_of(run_or_model)
    separator: str = Data.model_fields["label_separator"].default if run is None else run.recipe().data.label_separator
    return separator


def check_output(output: Path) -> None:
    """Refuse what cannot be written.

    Raises:
        UserError: a file that exists, or of a kind that is not written.
    """
    _check_format(output)
    if output.exists():
        raise UserError(f"{output} exists; choose another --output")


def _check_format(output: Path) -> None:
    if output.suffix.lower() not in _WRITABLE:
        raise UserError(f"{output}: unknown kind of file; name it {', '.join(_WRITABLE)}")


def write_in_chunks(
    rows: datasets.Dataset,
    output: Path,
    claim: Mapping[str, object],
    chunk_rows: int,
    compute: Callable[[datasets.Dataset, int], pa.Table],
    title: str,
    accelerator: Accelerator,
) -> None:
    """Write what `compute` makes of each chunk of rows and its first row's number, going on after those that are done.

    `claim` says what the chunks are made of; those of another one are refused.

    Raises:
        UserError: chunks of another input or model lie beside the output, or it cannot hold so many rows.
    """
    _check_length(output, len(rows))
    main = accelerator.is_main_process
    parts = output.with_name(f".{output.name}.parts")
    claim = {**claim, "chunk_rows": chunk_rows}
    chunks = range(0, len(rows), chunk_rows)
    if main:
        _open_parts(parts, claim, output)
    accelerator.wait_for_everyone()
    done = {start for start in chunks if _part(parts, start).exists()}
    # No process may look for finished chunks after another has begun to write some.
    accelerator.wait_for_everyone()
    if done:
        say(f"{output}: going on after {len(done)} of {len(chunks)} chunks", main_process=main)
    with ProgressBar(title, len(rows), done=len(done) * chunk_rows, main_process=main) as bar:
        for start in chunks:
            if start in done:
                continue
            chunk = rows.select(range(start, min(start + chunk_rows, len(rows))))
            table = compute(chunk, start)
            if main:
                _write_part(table, _part(parts, start))
            bar.advance(len(chunk))
    if main:
        _join(parts, list(chunks), output)
        shutil.rmtree(parts)
    accelerator.end_training()


def _open_parts(parts: Path, claim: dict[str, object], output: Path) -> None:
    manifest = parts / "manifest.json"
    if manifest.exists() and json.loads(manifest.read_text(encoding="utf-8")) != claim:
        raise UserError(
            f"{parts} holds chunks of another input or model; remove it, or choose another --output than {output}"
        )
    if not manifest.exists():
        if parts.exists():
            shutil.rmtree(parts)  # chunks of whom nobody can say any more, left by a kill while they were removed
        parts.mkdir(parents=True)
        temporary = manifest.with_suffix(".unfinished")
        temporary.write_text(json.dumps(claim), encoding="utf-8")
        _put(temporary, manifest)


def _part(parts: Path, start: int) -> Path:
    return parts / f"{start:012d}.parquet"


def _write_part(table: pa.Table, path: Path) -> None:
    temporary = path.with_suffix(".unfinished")
    pq.write_table(table, temporary)
    _put(temporary, path)


def _put(temporary: Path, path: Path) -> None:
    """Flush a file to the disk and put it in its place."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _join(parts: Path, starts: list[int], output: Path) -> None:
    """Put the chunks together, one in memory at a time, and in place by one rename."""
    temporary = parts / "joined"
    tables = (pq.read_table(_part(parts, start)) for start in starts)
    _write(tables, pq.read_schema(_part(parts, starts[0])), temporary, output)
    _put(temporary, output)


def write_table(table: pa.Table, output: Path) -> None:
    """Write a table in the format that the name of `output` asks for, over what may be there.

    For .xlsx: texts stay texts, also those that begin like formulas; characters that XML cannot hold become U+FFFD;
    texts of more than 32,767 characters, which no cell of Excel holds, are cut and end in an ellipsis; numbers that are
    not finite become empty cells.

    Raises:
        UserError: a format that is not written, or more rows than it holds.
    """
    _check_format(output)
    _check_length(output, len(table))
    _write([table], table.schema, output, output)


def _write(tables: Iterable[pa.Table], schema: pa.Schema, target: Path, output: Path) -> None:
    """Write tables, one in memory at a time, to `target` in the format of `output`."""
    match output.suffix.lower():
        case ".parquet":
            with pq.ParquetWriter(target, schema) as writer:
                for table in tables:
                    writer.write_table(table)
        case ".jsonl":
            with target.open("w", encoding="utf-8") as lines:
                for table in tables:
                    lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
        case ".xlsx":
            _write_workbook(tables, schema, target, output)
        case suffix:
            options = pyarrow.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
            with pyarrow.csv.CSVWriter(target, schema, write_options=options) as writer:
                for table in tables:
                    writer.write_table(table)


# --- Excel ------------------------------------------------------------------------------------------------------------


def _check_length(output: Path, rows: int) -> None:
    if output.suffix.lower() == ".xlsx" and rows >= _SHEET_ROWS:
        raise UserError(
            f"{output}: {rows:,} rows, and a sheet of Excel holds {_SHEET_ROWS - 1:,}; name the output .csv or .parquet"
        )


def _write_workbook(tables: Iterable[pa.Table], schema: pa.Schema, target: Path, output: Path) -> None:
    from openpyxl import Workbook  # here: slow to load, and few files are workbooks
    from openpyxl.cell import WriteOnlyCell

    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet("Sheet1")
    sheet.freeze_panes = "A2"

    def cell(value: object) -> object:
        if value is None or value == "":
            return None
        if isinstance(value, int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        written = WriteOnlyCell(sheet, _cell_text(str(value)))
        written.data_type = "s"  # openpyxl would take "=1+1" for a formula and "#N/A" for an error
        return written

    sheet.append([cell(name) for name in schema.names])
    count = 0
    for table in tables:
        count += len(table)
        _check_length(output, count)
        columns = [_digits_kept(column).to_pylist() for column in table.columns]
        for row in zip(*columns, strict=True):
            sheet.append([cell(value) for value in row])
    workbook.save(target)


def _digits_kept(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """0.9 of 32 bits is 0.8999999761581421 of 64: as the number that it is written as, it stays 0.9."""
    return column.cast(pa.string()).cast(pa.float64()) if column.type == pa.float32() else column


def _cell_text(text: str) -> str:
    """What the file has to say for a cell to show `text`."""
    written = _ESCAPE.sub("_x005F_", _NOT_XML.sub("\ufffd", text)).replace("\r", "_x000D_")
    units = written.encode("utf-16-le")
    if len(units) <= 2 * _CELL_CHARACTERS:
        return written
    kept = units[: 2 * (_CELL_CHARACTERS - 1)].decode("utf-16-le", "ignore")
    return re.sub("_(x[0-9A-Fa-f]{0,4})?$", "", kept) + "…"


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(model: PreTrainedModel) -> str:
    """sha256 over the weights: chunks of two models must not be mixed."""
    return fingerprint_of(model.state_dict())


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the names and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
