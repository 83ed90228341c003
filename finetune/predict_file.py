"""What a model says of a whole file: in chunks, so that memory stays flat and a killed run goes on where it was."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from accelerate import Accelerator
from transformers import PreTrainedModel

from finetune.data.sources import FileOptions, read_file
from finetune.errors import UserError
from finetune.predict import load_classifier
from finetune.progress import ProgressBar, say

_WRITABLE = (".csv", ".tsv", ".jsonl", ".parquet")


def predict_file(
    run_or_model: str, source: Path, output: Path, text_column: str = "text", chunk_rows: int = 10_000
) -> int:
    """Label every row of `source`; returns the number of rows.

    `output` gets one row for each, in order: row (from 0), text, label, probability_NAME per label (or rating); its
    format goes by its name. Chunks that are done lie beside it until all are; the same command goes on from them.
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

    def label(chunk: datasets.Dataset, start: int) -> pa.Table:
        outputs = classifier.classify_rows(chunk)
        columns: dict[str, object] = {
            "row": range(start, start + len(chunk)),
            "text": chunk.with_format("arrow")[:]["text"],
        }
        if classifier.task == "rate":
            columns["rating"] = outputs[:, 0]
        else:
            columns["label"] = [classifier.labels[i] for i in outputs.argmax(axis=1)]
            columns |= {f"probability_{name}": outputs[:, i] for i, name in enumerate(classifier.labels)}
        return pa.table(columns)

    claim = {"source": sha256(source), "model": fingerprint(classifier.model), "text_column": text_column}
    write_in_chunks(rows, output, claim, chunk_rows, label, "predicting", accelerator)
    return len(rows)


def check_output(output: Path) -> None:
    """Refuse what cannot be written.

    Raises:
        UserError: a file that exists, or of a kind that is not written.
    """
    if output.suffix.lower() not in _WRITABLE:
        raise UserError(f"{output}: unknown kind of file; name it {', '.join(_WRITABLE)}")
    if output.exists():
        raise UserError(f"{output} exists; choose another --output")


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
        UserError: chunks of another input or model lie beside the output.
    """
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
    tables: Iterator[pa.Table] = (pq.read_table(_part(parts, start)) for start in starts)
    schema = pq.read_schema(_part(parts, starts[0]))
    match output.suffix.lower():
        case ".parquet":
            with pq.ParquetWriter(temporary, schema) as writer:
                for table in tables:
                    writer.write_table(table)
        case ".jsonl":
            with temporary.open("w", encoding="utf-8") as lines:
                for table in tables:
                    lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
        case suffix:
            options = pyarrow.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
            with pyarrow.csv.CSVWriter(temporary, schema, write_options=options) as writer:
                for table in tables:
                    writer.write_table(table)
    _put(temporary, output)


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(model: PreTrainedModel) -> str:
    """sha256 over the weights: chunks of two models must not be mixed."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
