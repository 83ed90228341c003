"""Excel workbooks: the first sheet as rows of text, from a file that need not be well meant."""

import datetime
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

import datasets
import pyarrow
from openpyxl.cell.read_only import EMPTY_CELL
from openpyxl.reader.excel import ExcelReader

from finetune.data.columns import check_columns, check_repeated, first_line
from finetune.errors import UserError

_MOST_ROWS = 1_048_576
"""Excel's own limit; a file may claim more, and the rows in between would be made up."""
_MOST_TIMES = 100
"""Sheets unpack to some twelve times their size; a small one may repeat itself more."""
_SMALL_BYTES = 20_000_000
_CHUNK = 65_536
# A character that XML or a line end would change, as Excel writes it; halves of surrogate pairs are no characters.
_ESCAPED = re.compile("_x((?![Dd][89A-Fa-f])[0-9A-Fa-f]{4})_")


def read_workbook(path: Path, columns: Sequence[str], most_bytes: int) -> datasets.Dataset:
    """The first sheet that is not hidden: each cell's value as text, by its number and not by how its format shows it.

    The header is the first row that is not empty. Empty rows between others are kept, so that rows can be counted;
    empty rows at the end and columns with nothing in them are what Excel only remembers. Of merged cells the first has
    the text. The rows are in memory: openpyxl keeps most of a workbook there anyway, a sheet ends at a million rows,
    and nothing of a file that a stranger sent stays in a cache.
    """
    _check_archive(path, most_bytes)
    # Pictures, rules for input: what openpyxl says that it leaves out was not asked for.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"openpyxl\.")
    try:
        with path.open("rb") as file:
            return _read_sheet(path, file, columns, most_bytes)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  # openpyxl lets through whatever a broken part of a workbook leads to
        cause = error.__cause__ or error
        raise UserError(
            f"{path}: not read as an Excel workbook ({type(cause).__name__}: {first_line(cause)}); open it in Excel "
            "and save it anew, or save it as CSV UTF-8"
        ) from None


def _check_archive(path: Path, most_bytes: int) -> None:
    """Refuse what is no workbook, and what would unpack or expand beyond measure."""
    damaged = "save it again from Excel, or download it again"
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if "[Content_Types].xml" not in archive.namelist():
                raise UserError(f"{path} is a zip archive, but no Excel workbook; unpack it first")
            # zipfile gives no more of a part than is declared here.
            size = sum(part.file_size for part in parts)
            if size > most_bytes or (size > _SMALL_BYTES and size > _MOST_TIMES * path.stat().st_size):
                raise UserError(
                    f"{path}: unpacks to {size / 1e6:,.0f} MB, more than a sheet of rows takes; save the sheet as CSV "
                    "UTF-8"
                )
            for part in parts:
                if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or part.flag_bits & 1:
                    raise UserError(f"{path}: packed or encrypted in a way that Excel never uses; {damaged}")
                with archive.open(part) as file:
                    _check_prolog(path, file)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
        if not zipfile.is_zipfile(path) and not _starts_as_zip(path):
            raise UserError(
                f"{path} is no Excel workbook (.xlsx); save it as one from Excel, or name it what it is, such as .csv"
            ) from None
        raise UserError(f"{path}: damaged: {first_line(error)}; {damaged}") from None


def _starts_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


class _RootFoundError(Exception):
    """Ends the parsing of a part where its content begins."""


def _check_prolog(path: Path, part: IO[bytes]) -> None:
    """Refuse XML with a document type, whose entities may grow without end, and the one dialect that is not read."""

    def refuse(*_: object) -> None:
        raise UserError(
            f"{path}: its XML has a document type, which Excel never writes; open it in Excel and save it anew"
        )

    def stop(_: str, attributes: dict[str, str]) -> None:
        if any("purl.oclc.org/ooxml/" in value for value in attributes.values()):
            raise UserError(f"{path}: a Strict Open XML workbook; save it as an Excel workbook (.xlsx) from Excel")
        raise _RootFoundError

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        for chunk in iter(partial(part.read, _CHUNK), b""):
            parser.Parse(chunk)
    except (_RootFoundError, expat.ExpatError):  # what is no XML, such as a picture, is not parsed by others either
        return


class _Archive(zipfile.ZipFile):
    """In chunks: at once, zipfile unpacks all that a part holds before it cuts it to the size declared."""

    def read(self, name: str | zipfile.ZipInfo, pwd: bytes | None = None) -> bytes:
        with self.open(name, pwd=pwd) as part:
            return b"".join(iter(partial(part.read, _CHUNK), b""))


class _FirstSheet(ExcelReader):
    """openpyxl's reader for the first sheet that is not hidden: further ones would cost time, even unread."""

    def __init__(self, file: IO[bytes], *, data_only: bool) -> None:
        super().__init__(file, read_only=True, data_only=data_only, keep_links=False)
        self.archive = _Archive(file)

    def read_worksheets(self) -> None:
        sheets = [
            sheet
            for sheet, part in self.parser.find_sheets()
            if sheet.state == "visible" and "chartsheet" not in part.Type and part.target in self.valid_files
        ]
        self.others = [sheet.name for sheet in sheets[1:]]
        self.parser.sheets = sheets[:1]
        super().read_worksheets()

    def read_properties(self) -> None:
        """Nothing that is needed, and other programs write them wrongly."""

    read_custom = read_properties


def _read_sheet(path: Path, file: IO[bytes], columns: Sequence[str], most_bytes: int) -> datasets.Dataset:
    reader = _FirstSheet(file, data_only=True)
    reader.read()
    if not reader.wb.worksheets:
        raise UserError(f"{path}: no sheet of cells in it; save the rows as .xlsx or as CSV UTF-8")
    title = repr(reader.wb.worksheets[0].title)
    limits = _Limits(path, most_bytes)
    rows = _rows(reader, limits)
    header_row, header = next(((number, texts) for number, row in rows if any(texts := _texts(row))), (0, []))
    if not header_row:
        raise UserError(f"{path}: the first sheet, {title}, is empty")
    while not header[-1]:
        header.pop()
    check_repeated(path, header, header_row)
    try:
        check_columns(path, header, columns)
    except UserError as error:
        raise UserError(
            f"{error}; of the sheets only the first, {title}, is read" if reader.others else error
        ) from None
    wanted = {position: name for position, name in enumerate(header) if name in columns}
    values, bare = _values(rows, header_row, header, wanted, limits)
    if bare:
        _check_formulas(file, wanted, limits)
    if not any(values.values()):
        raise UserError(f"{path}: no rows below the header")
    given = dict(enumerate(header))
    names = {position: given.get(position) or f"column {position + 1}" for position in sorted(values)}
    check_repeated(path, list(names.values()), header_row)
    return datasets.Dataset.from_dict(
        {name: pyarrow.array(values[position], pyarrow.string()) for position, name in names.items()}
    )


@dataclass(frozen=True)
class _Limits:
    """What a workbook may hold: a small one can claim many rows, or have one text in many cells."""

    path: Path
    most_bytes: int

    def check(self, row: int, cells: int = 0, characters: int = 0) -> None:
        if row > _MOST_ROWS:
            raise UserError(f"{self.path}: rows beyond the last that Excel has; open it in Excel and save it anew")
        if cells > self.most_bytes / 10 or characters > self.most_bytes:  # a cell takes ten bytes at the least
            raise UserError(
                f"{self.path}, row {row}: more cells or longer texts than a sheet of rows has; save it as CSV UTF-8"
            )


def _rows(reader: _FirstSheet, limits: _Limits) -> Iterator[tuple[int, Sequence[Any]]]:
    """(row number, cells) of the rows that have any; a row ends with its last cell."""
    sheet = reader.wb.worksheets[0]
    sheet.reset_dimensions()  # many programs declare them wrongly
    seen = 0
    for number, row in enumerate(sheet.iter_rows(max_row=_MOST_ROWS + 1), start=1):
        seen += len(row)
        limits.check(number, seen)
        if row:
            yield number, row


def _values(
    rows: Iterator[tuple[int, Sequence[Any]]],
    header_row: int,
    header: Sequence[str],
    wanted: dict[int, str],
    limits: _Limits,
) -> tuple[dict[int, list[str]], bool]:
    """The columns by their position, and whether a wanted one has a cell that may be a formula without a value."""
    values: dict[int, list[str]] = {position: [] for position, name in enumerate(header) if name}
    count = characters = 0
    bare = False
    for number, row in rows:
        texts = {position: text for position, text in enumerate(_texts(row)) if text}
        for position, name in wanted.items():
            cell = row[position] if position < len(row) else EMPTY_CELL
            if cell.data_type == "e":
                raise UserError(
                    f"{limits.path}, row {number}: {name!r} is the error {cell.value}; mend the formula or remove the "
                    "row"
                )
            bare |= cell is not EMPTY_CELL and cell.value is None and cell.data_type != "str"
        if not texts:
            continue
        characters += sum(map(len, texts.values()))
        limits.check(number, len(values.keys() | texts.keys()) * number, characters)
        for position in texts.keys() - values.keys():
            values[position] = [""] * count
        empty = number - header_row - 1 - count
        for position, column in values.items():
            column.extend([""] * empty)
            column.append(texts.get(position, ""))
        count += empty + 1
    return values, bare


def _check_formulas(file: IO[bytes], wanted: dict[int, str], limits: _Limits) -> None:
    """Refuse formulas whose value was never computed: openpyxl reads the one or the other, and those as nothing."""
    with_values, with_formulas = (_FirstSheet(file, data_only=data_only) for data_only in (True, False))
    with_values.read()
    with_formulas.read()
    for (number, cells), (_, formulas) in zip(_rows(with_values, limits), _rows(with_formulas, limits), strict=True):
        for position, name in wanted.items():
            if (
                position < len(cells)
                and formulas[position].data_type == "f"
                and cells[position].value is None
                and cells[position].data_type != "str"  # a formula whose value is the empty text
            ):
                raise UserError(
                    f"{limits.path}, row {number}: {name!r} is a formula without a value; open the file in Excel and "
                    "save it there"
                )


def _texts(row: Sequence[Any]) -> list[str]:
    return [_cell_text(cell.value) for cell in row]


def _cell_text(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value) if "_x" in value else value
        case bool():
            return str(value).upper()
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case float():
            return f"{value:.15g}"  # as many digits as Excel shows
        case datetime.datetime():
            return value.isoformat(sep=" ").removesuffix(" 00:00:00")
        case datetime.timedelta():
            minutes, seconds = divmod(round(value.total_seconds()), 60)
            return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return str(value)
