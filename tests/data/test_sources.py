"""Files as people have them: read right, or refused in one line that names file, row and fix."""

import bz2
import gzip
import json
import lzma
import os
import zipfile
from datetime import date, datetime, time, timedelta

import datasets
import openpyxl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.sources import FileOptions, read_file
from finetune.errors import UserError
from finetune.predict_file import write_table


def read(path, columns=("text", "label"), **options):
    return read_file(path, FileOptions(**options), columns).to_list()


def refusal(path, columns=("text", "label"), **options):
    with pytest.raises(UserError) as caught:
        read(path, columns, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_csv_keeps_every_character(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"a, ""b""\nc",1\nNA,0\nnull,1\n 공백 ,0\n', encoding="utf-8")
    assert [row["text"] for row in read(path)] == ['a, "b"\nc', "NA", "null", " 공백 "]
    assert [row["label"] for row in read(path)] == ["1", "0", "1", "0"]


def test_tsv_takes_quote_marks_as_text(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('id\tdocument\tlabel\n1\t"반만 열린\t0\n2\tnan\t1\n3\t\t1\n', encoding="utf-8")
    assert [row["document"] for row in read(path, ("document", "label"))] == ['"반만 열린', "nan", ""]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp949", "utf-16"])
def test_encodings_by_name(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n한글,1\n", encoding=encoding)
    assert read(path, encoding="utf-8" if encoding == "utf-8-sig" else encoding) == [{"text": "한글", "label": "1"}]


def test_jsonl_and_parquet(tmp_path):
    rows = [{"text": "하나", "label": 1}, {"text": "둘", "label": 0}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.jsonl") == read(tmp_path / "a.parquet") == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv: the file is empty"),
        ("a.csv", b"text,lable\nx,1\n", "no column 'label' among 'text', 'lable'; did you mean 'lable'?"),
        ("a.csv", b"text,label,label\nx,1,2\n", "row 1: the column 'label' stands twice"),
        ("a.csv", b"text,label\nx,1\ny\n", "a.csv, row 3: 1 fields where the header has 2; mend or remove the row"),
        ("a.csv", b"text,label\nx,1\ny,1,2\n", "a.csv, row 3: 3 fields where the header has 2"),
        (
            "a.csv",
            "text,label\n한글,1\n".encode("cp949"),
            "row 2: not utf-8 text, it looks like cp949; set",
        ),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": \n', "a.jsonl, row 2: not JSON"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n[1]\n', "a.jsonl, row 2: a JSON object is needed"),
        ("a.parquet", b"not parquet", "a.parquet: "),
        ("a.docx", b"x", "unknown kind of file '.docx'"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["reviews[1].csv", "a*b?.jsonl", "[후기] (2).tsv"])
def test_a_name_is_no_pattern(tmp_path, name):
    path = tmp_path / name
    path.write_text('{"text": "a"}\n' if name.endswith("jsonl") else "text\na\n", encoding="utf-8")
    (tmp_path / "reviews1.csv").write_text("text\nother\n", encoding="utf-8")
    assert read_file(path, FileOptions(), ["text"])["text"][:] == ["a"]


def test_what_is_not_there_is_named(tmp_path):
    assert "no such file" in refusal(tmp_path / "a.csv")
    assert "is a directory" in refusal(tmp_path)
    (tmp_path / "a.csv").write_text("text,label\nx,1\n")
    assert "no encoding named 'utf-9'" in refusal(tmp_path / "a.csv", encoding="utf-9")


@settings(deadline=None, max_examples=25)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1), min_size=1
    )
)
def test_any_text_comes_back_from_a_csv_as_it_was(tmp_path_factory, texts):
    import csv

    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([text, "1"] for text in texts)
    assert [row["text"] for row in read(path)] == texts


@pytest.mark.parametrize("packer", [None, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
def test_text_files_are_a_text_a_line_packed_or_not(tmp_path, packer, encoding):
    content = "첫 줄\n\n둘째\x0b 줄\r\n셋째".encode(encoding)
    path = tmp_path / "a.txt"  # what is in it counts, not its name
    path.write_bytes(content if packer is None else packer(content))
    rows = read(path, ("text",), file_format="text", encoding=encoding)
    assert [row["text"] for row in rows] == ["첫 줄", "", "둘째\x0b 줄", "셋째"]


def test_a_text_file_is_read_anew_when_it_changes_and_has_no_mark_of_order(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("가\n", "나\n"):
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read(path, ("text",), file_format="text") == [{"text": text.strip()}]
        os.utime(path, ns=(1, len(text)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lzma.compress("가나\n다라\n".encode("cp949")), "row 1: not utf-8 text, it looks like cp949"),
        (lzma.compress("가나\n".encode() * 100)[:-20], "damaged"),
        (gzip.compress(b"", mtime=0), "no line in it"),
        (b"\x28\xb5\x2f\xfd" + b"0" * 50, "compressed with zstd"),
    ],
)
def test_text_files_that_cannot_be_read_are_refused(tmp_path, content, message):
    path = tmp_path / "a.txt.xz"
    path.write_bytes(content)
    assert message in refusal(path, ("text",), file_format="text")


def save_workbook(path, *rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("좋아요", "좋아요"),
        (" 두\n줄 ", " 두\n줄 "),
        ("nan", "nan"),
        ("007", "007"),
        (1, "1"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (0.1 + 0.2, "0.3"),
        (123456789012, "123456789012"),
        (1e20, "1e+20"),
        (True, "TRUE"),
        (False, "FALSE"),
        (date(2024, 3, 1), "2024-03-01"),
        (datetime(2024, 3, 1, 13, 45), "2024-03-01 13:45:00"),
        (time(13, 45), "13:45:00"),
        (timedelta(hours=26, minutes=5), "26:05:00"),
        ("가_x000D_\n나", "가\r\n나"),
        ("_xD83D_", "_xD83D_"),
        (None, ""),
    ],
)
def test_a_cell_of_excel_is_the_text_of_its_value(tmp_path, value, text):
    path = save_workbook(tmp_path / "a.xlsx", ["text", "label"], [value, "x"])
    assert read(path) == [{"text": text, "label": "x"}]


def test_rows_of_excel_can_be_counted_and_nothing_of_them_stays_on_the_disk(tmp_path):
    path = save_workbook(
        tmp_path / "a.xlsx", [], [None, "text", None, "", "label"], [None, "가", 7], [], [3, "나", "", "", 1]
    )
    rows = read_file(path, FileOptions(), ["text"])
    assert rows.to_list() == [
        {"column 1": "", "text": "가", "column 3": "7", "label": ""},
        {"column 1": "", "text": "", "column 3": "", "label": ""},
        {"column 1": "3", "text": "나", "column 3": "", "label": "1"},
    ]
    assert rows.cache_files == []


def save_shared(path, string, count):
    """As Excel saves it: the texts apart from the cells, `count` of which have this one."""
    save_workbook(path, ["text"], *[["x"]] * count)
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            content = content.replace('t="inlineStr"><is><t>x</t></is>', 't="s"><v>0</v>')
            content = content.replace("</Types>", f'<Override PartName="/strings.xml" ContentType="{kind}"/></Types>')
            archive.writestr(name, content)
        namespace = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
        archive.writestr("strings.xml", f'<sst xmlns="{namespace}">{string}</sst>')
    return path


def test_texts_of_excel_that_are_formatted_or_have_a_reading_above_them(tmp_path):
    run = "<r><rPr><b/></rPr><t>굵은 </t></r><r><t>글_x000D_</t></r>"
    path = save_shared(tmp_path / "a.xlsx", f'<si>{run}<rPh sb="0" eb="1"><t>よみ</t></rPh></si>', 2)
    assert read(path, ("text",)) == [{"text": "굵은 글\r"}] * 2


def test_one_long_text_in_many_cells_of_excel_is_no_way_to_fill_the_memory(tmp_path):
    path = save_shared(tmp_path / "a.xlsx", f"<si><t>{'a' * 30_000}</t></si>", 40)
    assert len(read(path, ("text",))) == 40
    assert "row 35: more cells or longer texts" in refusal(path, ("text",), workbook_bytes=1_000_000)
    assert "unpacks to 0 MB" in refusal(path, ("text",), workbook_bytes=10_000)


@settings(deadline=None, max_examples=25)
@given(
    texts=st.lists(
        st.text(
            st.characters(
                exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff", include_characters="\t\r\n"
            )
        )
        | st.sampled_from(["=1+1", "#N/A", "+1", "@x", "1", "1.50", "TRUE", "_x000D_", "_x005F_", " ", "'a"]),
        min_size=1,
    ).filter(lambda texts: texts[-1])
)
def test_any_text_comes_back_from_a_workbook_as_it_was(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("xlsx") / "a.xlsx"
    write_table(pa.table({"text": texts}), path)
    assert [row["text"] for row in read(path, ("text",))] == texts
