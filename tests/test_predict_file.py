"""Labels for a whole file: every row once, in order, also after the command was killed."""

import json
import sys

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from line_kill import AtLine
from reviews import small_recipe, write_csv

from finetune import predict_file as module
from finetune.cli import main
from finetune.errors import UserError
from finetune.predict import load_classifier
from finetune.predict_file import predict_file, write_table
from finetune.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return str(train(small_recipe(tmp_path_factory.mktemp("trained"), "bigru-max")).path)


def expected(run, source):
    texts = pyarrow.csv.read_csv(source)["text"].to_pylist()
    return texts, load_classifier(run).classify(texts)


def rows_of_workbook(path):
    head, *rows = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_every_row_has_its_label_in_order(run, tmp_path, suffix):
    source, output = write_csv(tmp_path / "in.csv", 57), tmp_path / f"out.{suffix}"
    assert predict_file(run, source, output, chunk_rows=10) == 57
    match suffix:
        case "parquet":
            rows = pq.read_table(output).to_pylist()
        case "jsonl":
            rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        case "xlsx":
            rows = rows_of_workbook(output)
        case _:
            options = pyarrow.csv.ParseOptions(delimiter="\t" if suffix == "tsv" else ",")
            rows = pyarrow.csv.read_csv(output, parse_options=options).to_pylist()
    texts, probabilities = expected(run, source)
    assert [row["row"] for row in rows] == list(range(57))
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows] == [["negative", "positive"][i] for i in probabilities.argmax(axis=1)]
    assert np.allclose([row["probability_positive"] for row in rows], probabilities[:, 1], atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.csv", output.name])


class Crash(BaseException):
    """Ends the command as abruptly as a test in the same process can."""


def test_after_a_kill_no_row_is_lost_or_done_twice(run, tmp_path, monkeypatch):
    source = write_csv(tmp_path / "in.csv", 57)
    predict_file(run, source, tmp_path / "undisturbed.parquet", chunk_rows=10)
    original, written = module._write_part, []

    def count(table, path):
        if len(written) == 3:
            path.with_suffix(".unfinished").write_bytes(b"half")
            raise Crash
        written.append(path.name)
        original(table, path)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_part", count)
        with pytest.raises(Crash):
            predict_file(run, source, tmp_path / "out.parquet", chunk_rows=10)
    assert not (tmp_path / "out.parquet").exists()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_part", lambda table, path: (written.append(path.name), original(table, path)))
        predict_file(run, source, tmp_path / "out.parquet", chunk_rows=10)
    assert len(written) == len(set(written)) == 6
    assert pq.read_table(tmp_path / "out.parquet").equals(pq.read_table(tmp_path / "undisturbed.parquet"))


def test_a_kill_before_any_line_loses_nothing(run, tmp_path):
    """Every 17th line that the module runs, and each line of its first and last steps."""
    source = write_csv(tmp_path / "in.csv", 25)
    predict_file(run, source, tmp_path / "undisturbed.csv", chunk_rows=10)
    undisturbed = (tmp_path / "undisturbed.csv").read_bytes()

    def killed_at(number, output):
        """Whether the command got that far, and how many lines it ran."""

        def crash():
            raise Crash

        trace = AtLine(module.__file__, number, crash)
        sys.settrace(trace)
        try:
            predict_file(run, source, output, chunk_rows=10)
        except Crash:
            return True, trace.seen
        finally:
            sys.settrace(None)
        return False, trace.seen

    _, lines = killed_at(10**9, tmp_path / "counted.csv")
    assert lines > 60
    for number in {*range(1, lines, 17), *range(12, 40, 2), *range(lines - 25, lines)}:
        output = tmp_path / f"{number}.csv"
        killed, _ = killed_at(number, output)
        assert killed
        if not output.exists():  # else it was through, but for clearing away
            predict_file(run, source, output, chunk_rows=10)
        assert output.read_bytes() == undisturbed


def test_chunks_that_nobody_claims_are_cleared_away(run, tmp_path):
    source = write_csv(tmp_path / "in.csv", 25)
    predict_file(run, source, tmp_path / "undisturbed.csv", chunk_rows=10)
    parts = tmp_path / ".out.csv.parts"
    parts.mkdir()
    pq.write_table(pq.read_table(_table(tmp_path)), parts / f"{0:012d}.parquet")
    predict_file(run, source, tmp_path / "out.csv", chunk_rows=10)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()


def _table(directory):
    """A chunk of something else."""
    pq.write_table(pa.table({"row": [0], "text": ["of another model"]}), directory / "other.parquet")
    return directory / "other.parquet"


def test_chunks_of_another_input_are_not_mixed_in(run, tmp_path, monkeypatch):
    def crash(*_):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_part", crash)
        with pytest.raises(Crash):
            predict_file(run, write_csv(tmp_path / "in.csv", 20), tmp_path / "out.csv")
    with pytest.raises(UserError, match="holds chunks of another input"):
        predict_file(run, write_csv(tmp_path / "in.csv", 30), tmp_path / "out.csv")


def test_the_command_and_its_refusals(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "in.csv", 12)
    assert main(["predict", run, "--input", "in.csv", "--output", "out.csv"]) == 0
    assert "12 rows labelled -> out.csv" in capsys.readouterr().out
    for arguments, message in (
        (["--input", "in.csv", "--output", "out.csv"], "out.csv exists; choose another --output"),
        (["--input", "in.csv"], "--input FILE with --output FILE"),
        (["x", "--input", "in.csv", "--output", "b.csv"], "--input FILE with --output FILE"),
        (["--input", "in.csv", "--output", "b.docx"], "unknown kind of file"),
        (["--input", "in.csv", "--output", "b.csv", "--text_column", "txt"], "no column 'txt'"),
    ):
        assert main(["predict", run, *arguments]) == 2
        assert message in capsys.readouterr().err


def test_from_excel_to_excel(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = ["정말 재미있다", "=1+1", "너무 지루하다"]
    write_table(pa.table({"review": texts, "by": ["a", "b", "c"]}), tmp_path / "in.xlsx")
    arguments = ["predict", run, "--input", "in.xlsx", "--output", "out.xlsx", "--text_column", "review"]
    assert main(arguments) == 0
    assert "3 rows labelled -> out.xlsx" in capsys.readouterr().out
    rows = rows_of_workbook("out.xlsx")
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert [row["text"] for row in rows] == texts
    probabilities = load_classifier(run).classify(texts)
    assert [row["label"] for row in rows] == [["negative", "positive"][i] for i in probabilities.argmax(axis=1)]


def test_what_excel_cannot_hold(tmp_path, monkeypatch):
    path = tmp_path / "a.XLSX"
    texts = [
        "=HYPERLINK()",
        "#N/A",
        "a\0b\x1f\uffff",
        "가" * 32_767,
        "가" * 32_768,
        "😀" * 16_384,
        "_x000D_" * 9_000,
        None,
    ]
    numbers = [0.9, float("nan"), float("inf"), None, 0.1, 1.0, 1e-7, 0.0]
    table = pa.table({"=text": texts, "number": pa.array(numbers, pa.float32()), "yes": [True] * 8})
    write_table(table, path)
    cells = list(openpyxl.load_workbook(path).active.iter_rows())
    assert {cell.data_type for row in cells for cell in row} == {"s", "n", "b"}
    written = [row[0].value for row in cells]
    assert written[:4] == ["=text", "=HYPERLINK()", "#N/A", "a�b��"]
    assert written[4] == texts[3]
    assert written[5] == "가" * 32_766 + "…"
    assert written[6] == "😀" * 16_383 + "…"
    assert written[7].endswith("_x005F_x000D_…")
    assert len(written[7]) <= 32_767
    assert written[8] is None
    assert [row[1].value for row in cells[1:]] == [0.9, None, None, None, 0.1, 1, 1e-7, 0]
    monkeypatch.setattr(module, "_SHEET_ROWS", 8)
    with pytest.raises(UserError, match="8 rows, and a sheet of Excel holds 7; name the output"):
        write_table(table, path)
    write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="unknown kind of file"):
        write_table(table, tmp_path / "a.xls")


def test_more_rows_than_a_sheet_holds_are_refused_before_any_is_labelled(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SHEET_ROWS", 12)
    with pytest.raises(UserError, match="12 rows, and a sheet of Excel holds 11"):
        predict_file(run, write_csv(tmp_path / "in.csv", 12), tmp_path / "out.xlsx")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    assert predict_file(run, write_csv(tmp_path / "in.csv", 11), tmp_path / "out.xlsx") == 11
