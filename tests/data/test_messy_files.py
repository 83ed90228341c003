"""Files as people have them: each is read and counted, or refused in one line with file, row and fix.

The table: what lies in the file, the options given, and what is expected: the rows kept (and empty ones left out), or
words of the one line on stderr. Nothing is left behind in the working directory in either case.
"""

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from typing import Any

import fuzz_readers
import openpyxl
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.cli import main

GOOD = "text,label\n좋아요,1\n싫어요,0\n"
ONE = {"text": "a", "label": 1}


def zipped(name: str, content: str) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def parquet(**columns: Any) -> bytes:
    buffer = BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


Book = openpyxl.Workbook
SHEET, SHEETS = "xl/worksheets/sheet1.xml", "xl/workbook.xml"


def excel(*rows: list[Any], change: Callable[[Book], object] = lambda book: None) -> bytes:
    """A workbook with these rows below the header text, label; then changed."""
    book, buffer = Book(), BytesIO()
    for row in (["text", "label"], *rows):
        book.active.append(row)
    change(book)
    book.save(buffer)
    return buffer.getvalue()


def repacked(workbook: bytes, part: str, old: str, new: str, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A workbook with one part changed, as no openpyxl would write it."""
    buffer = BytesIO()
    with zipfile.ZipFile(BytesIO(workbook)) as before, zipfile.ZipFile(buffer, "w", method) as after:
        for name in before.namelist():
            content = before.read(name).decode()
            assert name != part or old in content, content
            after.writestr(name, content.replace(old, new) if name == part else content)
    return buffer.getvalue()


def lines(*records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@dataclass(frozen=True)
class Case:
    """A file, and what is to come of it: (rows kept, empty rows left out), or words of the refusal."""

    name: str
    content: bytes | str
    expected: tuple[int, int] | str
    options: dict[str, str] = field(default_factory=dict)
    test_file: str | None = None


EXCEL = excel(["좋아요", 1], ["싫어요", 0])
FORMULA = excel(['="a"&"b"', 1], ["c", 0])


def add_sheet(book: Book) -> None:
    book.create_sheet("hidden", 0).append(["nothing"])
    book.worksheets[0].sheet_state = "hidden"
    book.create_sheet("more").append(["more"])


def only_a_chart(book: Book) -> None:
    book.create_chartsheet("chart")
    book.remove(book.worksheets[0])


def empty_rows_and_columns(book: Book) -> None:
    sheet = book.active
    sheet.insert_rows(1, 2)
    sheet.insert_cols(1, 2)
    sheet.insert_rows(5)
    for row in range(1, 30):
        for column in range(1, 9):
            sheet.cell(row, column).number_format = "0.00"


def far_away(book: Book) -> None:
    for column in range(3, 60):
        book.active.cell(1, column, f"more {column}")
    book.active.cell(1_048_576, 1, "far away")


EXCEL_CASES = {
    "Excel": Case("a.xlsx", EXCEL, (2, 0)),
    "Excel in capitals": Case("A.XLSX", EXCEL, (2, 0)),
    "Excel by recipe": Case("a.data", EXCEL, (2, 0), {"file_format": "xlsx"}),
    "Excel's numbers, dates and true": Case("a.xlsx", excel([1.5, True], [date(2024, 3, 1), False], [3, True]), (3, 0)),
    "empty rows and columns around": Case("a.xlsx", excel(["a", 1], ["b", 0], change=empty_rows_and_columns), (2, 1)),
    "a sheet of the wrong size": Case("a.xlsx", repacked(EXCEL, SHEET, 'ref="A1:B3"', 'ref="A1"'), (2, 0)),
    "hidden and further sheets": Case("a.xlsx", excel(["a", 1], ["b", 0], change=add_sheet), (2, 0)),
    "a column on another sheet": Case(
        "a.xlsx", excel(change=add_sheet), "only the first, 'Sheet', is read", {"text_column": "more"}
    ),
    "a cell at the end of the sheet": Case("a.xlsx", excel(change=far_away), "row 1048576: more cells or longer texts"),
    "rows beyond any sheet": Case("a.xlsx", repacked(EXCEL, SHEET, '<row r="3"', '<row r="9999999999"'), "rows beyond"),
    "Excel, another case in the header": Case(
        "a.xlsx", excel(change=lambda book: book.active.cell(1, 1, "Text")), "did you mean 'Text'?"
    ),
    "Excel, a column twice": Case(
        "a.xlsx", excel(change=lambda book: book.active.cell(1, 3, "label")), "row 1: the column 'label' stands twice"
    ),
    "Excel, a title above": Case(
        "a.xlsx", excel(change=lambda book: book.active.insert_rows(1) or book.active.cell(1, 1, "5월")), "among '5월'"
    ),
    "Excel, columns that have no name": Case("a.xlsx", excel(["a", 1, "x"], ["b", 0, None, "y"]), (2, 0)),
    "Excel, a header alone": Case("a.xlsx", excel(), "no rows below the header"),
    "Excel, merged labels": Case(
        "a.xlsx",
        excel(["a", 1], ["b"], ["c", 0], change=lambda book: book.active.merge_cells("B2:B3")),
        "no label; fill it in or remove the row",
    ),
    "Excel, an error": Case("a.xlsx", excel(["a", 1], ["b", "#N/A"]), "row 3: 'label' is the error #N/A; mend"),
    "Excel, an error elsewhere": Case("a.xlsx", excel(["a", 1, "#N/A"], ["b", 0]), (2, 0)),
    "Excel, a formula": Case("a.xlsx", FORMULA, "row 2: 'text' is a formula without a value; open the file in Excel"),
    "Excel, a formula below": Case("a.xlsx", excel(["a", 1], ["b", 0], ["=A1"]), "row 4: 'text' is a formula without"),
    "Excel, a formula elsewhere": Case("a.xlsx", excel(["a", 1, "=A1"], ["b", 0]), (2, 0)),
    "Excel, a formula with its value": Case("a.xlsx", repacked(FORMULA, SHEET, "<v></v>", "<v>7</v>"), (2, 0)),
    "Excel, a formula that is empty": Case(
        "a.xlsx", repacked(repacked(FORMULA, SHEET, '<c r="A2"', '<c r="A2" t="str"'), SHEET, "<v></v>", "<v/>"), (1, 1)
    ),
    "Excel, an empty sheet": Case(
        "a.xlsx", excel(change=lambda book: book.active.delete_rows(1)), "the first sheet, 'Sheet', is empty"
    ),
    "Excel, no sheet": Case("a.xlsx", excel(change=only_a_chart), "no sheet of cells in it"),
    # --- not what they seem
    "an old Excel workbook": Case("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "save it as .xlsx"),
    "Excel with a password": Case("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "without a password"),
    "Excel named csv": Case("a.csv", EXCEL, "is an Excel workbook; save it as .xlsx"),
    "Excel with macros": Case("a.xlsm", EXCEL, "is an Excel workbook; save it as .xlsx"),
    "csv named xlsx": Case("a.xlsx", GOOD, "a.xlsx is no Excel workbook"),
    "a web page named xlsx": Case("a.xlsx", "<html><table></table></html>", "a web page"),
    "a zip named xlsx": Case("a.xlsx", zipped("a.csv", GOOD), "a zip archive, but no Excel workbook"),
    "a zip of parts that are none": Case(
        "a.xlsx", zipped("[Content_Types].xml", "<x/>"), "not read as an Excel workbook"
    ),
    "half a workbook": Case("a.xlsx", EXCEL[: len(EXCEL) // 2], "a.xlsx: damaged"),
    "a broken workbook": Case("a.xlsx", repacked(EXCEL, SHEET, "</row>", "<row>"), "not read as an Excel workbook"),
    "a workbook that lacks a part": Case("a.xlsx", repacked(EXCEL, SHEETS, "sheetId", "id"), "not read as an Excel"),
    "a workbook packed by xz": Case("a.xlsx", repacked(EXCEL, SHEET, "", "", zipfile.ZIP_LZMA), "Excel never uses"),
    "a zip bomb": Case("a.xlsx", repacked(EXCEL, SHEET, "<row", " " * 21_000_000 + "<row"), "unpacks to "),
    "a document type": Case(
        "a.xlsx",
        repacked(EXCEL, SHEET, "<worksheet", '<!DOCTYPE x [<!ENTITY a "aaa"><!ENTITY b "&a;&a;">]><worksheet'),
        "its XML has a document type",
    ),
    "a strict workbook": Case(
        "a.xlsx",
        repacked(EXCEL, SHEETS, "http://schemas.openxmlformats.org/s", "http://purl.oclc.org/ooxml/s"),
        "a Strict Open XML workbook; save it as",
    ),
}
CASES = EXCEL_CASES | {
    # --- encodings
    "utf-8": Case("a.csv", GOOD, (2, 0)),
    "utf-8 with a byte order mark": Case("a.csv", GOOD.encode("utf-8-sig"), (2, 0)),
    "cp949, named": Case("a.csv", GOOD.encode("cp949"), (2, 0), {"encoding": "cp949"}),
    "cp949, not named": Case("a.csv", GOOD.encode("cp949"), "row 2: not utf-8 text, it looks like cp949"),
    "utf-16, named": Case("a.csv", GOOD.encode("utf-16"), (2, 0), {"encoding": "utf-16"}),
    "utf-16, not named": Case("a.csv", GOOD.encode("utf-16"), "it looks like utf-16"),
    "utf-16 without a mark": Case("a.csv", GOOD.encode("utf-16-le"), "it looks like utf-16-le"),
    "shift-jis": Case("a.csv", "text,label\nとても楽しい映画でした。,1\n".encode("shift_jis"), "not utf-8 text"),
    "latin-1": Case("a.csv", "text,label\ntrès bon,1\nmauvais,0\n".encode("latin-1"), "not utf-8 text"),
    "utf-8 read as cp949": Case("a.csv", GOOD + "뷁쉙,1\n", "not cp949 text", {"encoding": "cp949"}),
    "an encoding that is none": Case("a.csv", GOOD, "no encoding named 'utf-9'", {"encoding": "utf-9"}),
    "one broken byte": Case("a.csv", GOOD.encode() + b"ab\xffc,1\n", "row 4: not utf-8 text"),
    "jsonl in cp949, not named": Case("a.jsonl", lines({"text": "좋아요", "label": 1}).encode("cp949"), "cp949"),
    "jsonl with a byte order mark": Case(
        "a.jsonl", lines({"text": "a", "label": 1}, {"text": "b", "label": 0}).encode("utf-8-sig"), (2, 0)
    ),
    # --- quotes, newlines, separators
    "quotes and newlines in fields": Case("a.csv", 'text,label\n"그는 ""네""\n라고 했다",1\n"a,b",0\n', (2, 0)),
    "Windows line ends": Case("a.csv", GOOD.replace("\n", "\r\n"), (2, 0)),
    "no newline at the end": Case("a.csv", GOOD.rstrip("\n"), (2, 0)),
    "blank lines between": Case("a.csv", "text,label\n\n좋아요,1\n\n\n싫어요,0\n\n", (2, 0)),
    "a quote that never closes": Case("a.csv", 'text,label\na,1\n"b,0\nc,1\nd,0\n', "row 3: a quote mark opens"),
    "a quote in a tsv": Case("a.tsv", 'text\tlabel\n"반만\t0\n온전\t1\n', (2, 0)),
    "quotes off by recipe": Case("a.csv", 'text,label\n"b,0\nc,1\n', (2, 0), {"quoting": "none"}),
    "tsv named csv": Case("a.csv", "text\tlabel\na\t1\nb\t0\n", "no column 'text' among 'text\\tlabel'"),
    "semicolons": Case("a.csv", "text;label\na;1\nb;0\n", "fields seem to be separated by ';'"),
    "an Excel sep line": Case("a.csv", "sep=,\ntext,label\na,1\nb,0\n", "row 1: 'sep=,' is Excel's own; remove it"),
    "Excel's Unicode text": Case(
        "a.txt", "text\tlabel\n좋아요\t1\n싫어요\t0\n".encode("utf-16"), (2, 0), {"encoding": "utf-16"}
    ),
    "the original NSMC form": Case(
        "ratings.txt", 'id\tdocument\tlabel\n1\t"굿\t1\n2\t\t0\n3\tnan\t0\n', (2, 1), {"text_column": "document"}
    ),
    "a short row": Case("a.csv", "text,label\na,1\nb\n", "row 3: 1 fields where the header has 2"),
    "a long row": Case("a.csv", "text,label\na,1\nb,c,0\n", "row 3: 3 fields where the header has 2"),
    "a header alone": Case("a.csv", "text,label\n", "no rows below the header"),
    # --- cells
    "an empty text": Case("a.csv", "text,label\na,1\n ,0\nb,0\n", (2, 1)),
    "only empty texts": Case("a.csv", "text,label\n,1\n ,0\n", "no row has a text"),
    "words for nothing": Case("a.csv", "text,label\nNA,1\nnull,0\nNone,1\nnan,0\n", (4, 0)),
    "formulas": Case("a.csv", "text,label\n=1+1,1\n@SUM(A1),0\n", (2, 0)),
    "a million characters": Case("a.csv", f"text,label\n{'가' * 1_000_000},1\nb,0\n", (2, 0)),
    "control characters": Case("a.csv", "text,label\na\x07b\x1b[31m,1\nb,0\n", (2, 0)),
    "a NUL": Case("a.csv", "text,label\na\0b,1\nc,0\n", (2, 0)),
    "lone surrogates": Case("a.jsonl", '{"text": "a\\ud83d", "label": 1}\n{"text": "b"}\n', "row 1: half of"),
    "emoji in halves": Case("a.jsonl", '{"text": "a\\ud83d\\ude00", "label": 1}\n{"text": "b", "label": 0}\n', (2, 0)),
    # --- labels
    "label words": Case("a.csv", "text,label\na,긍정\nb,부정\n", (2, 0)),
    "numbers with decimals": Case("a.csv", "text,label\na,1.0\nb,0.0\n", (2, 0)),
    "spaces around labels": Case("a.csv", "text,label\na, 1\nb,0 \nc,1\n", (3, 0)),
    "labels of mixed types": Case(
        "a.jsonl",
        lines(ONE, {"text": "b", "label": "0"}),
        "row 2: 'label' is text here and a number",
    ),
    "true and false": Case("a.jsonl", lines({"text": "a", "label": True}, {"text": "b", "label": False}), (2, 0)),
    "a missing label": Case("a.csv", "text,label\na,1\nb,\nc,0\n", "row 3: no label; fill it in or remove the row"),
    "a null label": Case(
        "a.jsonl",
        lines(ONE, {"text": "b", "label": None}, {"text": "c", "label": 0}),
        "row 2: no label",
    ),
    "one class": Case("a.csv", "text,label\na,1\nb,1\n", "two labels or more are needed"),
    "one row": Case("a.csv", "text,label\na,1\n", "two labels or more are needed"),
    "a text column for labels": Case(
        "a.csv", "text,label\n" + "".join(f"a{i},b{i}\n" for i in range(1200)), "is that the label column?"
    ),
    "a label that train never has": Case(
        "a.csv", GOOD, "row 2: the label '2' is not among 0, 1", test_file="text,label\nz,2\n"
    ),
    "lists for labels": Case("a.jsonl", lines({"text": "a", "label": [1]}), "holds lists or objects"),
    # --- columns
    "another case in the header": Case("a.csv", "Text,Label\na,1\n", "did you mean 'Text'?"),
    "a column twice": Case("a.csv", "text,label,label\na,1,2\n", "the column 'label' stands twice"),
    "columns that have no name": Case("a.csv", "text,label,,\na,1,,\nb,0,,\n", (2, 0)),
    "more columns than needed": Case("a.csv", "id,text,date,label\n1,a,x,1\n2,b,y,0\n", (2, 0)),
    "numbers for texts": Case("a.jsonl", lines({"text": 1, "label": 1}, {"text": 2, "label": 0}), "not text"),
    "no header": Case("a.csv", "좋아요,1\n싫어요,0\n", "no column 'text'"),
    # --- JSONL and Parquet
    "a JSON list": Case("a.json", '[{"text": "a", "label": 1}, {"text": "b", "label": 0}]', (2, 0)),
    "broken JSON": Case("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", \n', "row 2: not JSON"),
    "a number a line": Case("a.jsonl", "1\n2\n", "row 1: a JSON object is needed"),
    "keys that come and go": Case(
        "a.jsonl", lines({"text": "a", "label": 1}, {"text": "b", "label": 0, "more": "x"}), (2, 0)
    ),
    "Parquet": Case("a.parquet", parquet(text=["a", "b"], label=[1, 0]), (2, 0)),
    "Parquet without a text": Case("a.parquet", parquet(text=["a", None], label=[1, 0]), (1, 1)),
    "no Parquet at all": Case("a.parquet", b"hello", "a.parquet: "),
    "Parquet with bytes that are no text": Case(
        "a.parquet", parquet(text=["good", "bad"], label=[1, 0]).replace(b"good", b"g\xff\xfed"), "not UTF-8 text"
    ),
    "half a Parquet file": Case("a.parquet", parquet(text=["a", "b"], label=[1, 0])[:-20], "a.parquet: "),
    # --- not what they seem
    "nothing": Case("a.csv", b"", "the file is empty"),
    "gzip": Case("a.csv", gzip.compress(GOOD.encode()), "compressed with gzip; unpack it first"),
    "gzip by name": Case("a.csv.gz", gzip.compress(GOOD.encode()), "compressed with gzip; unpack it first"),
    "bzip2": Case("a.csv", bz2.compress(GOOD.encode()), "compressed with bzip2"),
    "xz": Case("a.csv", lzma.compress(GOOD.encode()), "compressed with xz"),
    "zip": Case("a.csv", zipped("a.csv", GOOD), "a zip archive; unpack it first"),
    "an unknown ending": Case("a.docx", b"x", "unknown kind of file '.docx'"),
    "a web page": Case("a.csv", "<!DOCTYPE html>\n<html><body>login, please</body></html>\n", "a web page"),
}


def run(arguments, capsys) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", CASES)
def test_it_is_read_and_counted_or_refused_in_one_line(name, tmp_path, monkeypatch, capsys):
    case = CASES[name]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / case.name
    path.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode("utf-8"))
    arguments = ["doctor", case.name, "--json"]
    for key, value in case.options.items():
        arguments += [f"--data.{key}", value]
    if case.test_file is not None:
        (tmp_path / "test.csv").write_text(case.test_file, encoding="utf-8")
        arguments += ["--data.test_file", "test.csv"]
    before = set(tmp_path.iterdir())
    code, out, err = run(arguments, capsys)
    assert set(tmp_path.iterdir()) == before
    if isinstance(case.expected, str):
        assert code == 2, out
        assert err.count("\n") == 1, err
        assert err.startswith("finetune: ")
        assert case.expected in err
        assert case.name in err or "test.csv" in err or "encoding" in err
    else:
        assert code == 0, err
        rows = json.loads(out)["splits"]["rows"]
        assert (rows["rows"], rows["empty"]) == case.expected


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("missing.csv", "missing.csv: no such file"),
        ("folder.csv", "folder.csv is a directory"),
        ("https://example.org/a.csv", "https://example.org/a.csv is a URL; download the file and name its path"),
    ],
)
def test_what_is_no_file(target, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    code, _, err = run(["doctor", target], capsys)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("suffix", fuzz_readers.SUFFIXES)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(min_size=1, max_size=200), head=st.sampled_from([b"", b"text,label\n", b"text\tlabel\n", b"{"])
)
def test_any_bytes_are_rows_or_one_line(tmp_path, suffix, content, head):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(head + content)
    assert fuzz_readers.attempt(path, []) in ("rows", "refused")


def test_two_seconds_of_the_fuzz(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)  # put back afterwards: the fuzz sets its own
    monkeypatch.setattr("sys.argv", ["fuzz_readers.py", "--minutes", "0.03"])
    assert fuzz_readers.main() == 0, capsys.readouterr().out


def test_there_are_at_least_sixty():
    assert len(CASES) + 3 >= 60
