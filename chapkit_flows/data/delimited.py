"""Reading CSV: text stays as it was written, and only columns of plain numbers become numbers."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from chapkit_flows.errors import EmptyTable, UnreadableTable

KEYS = ("time_period", "location")
MISSING = ("", "NA", "NaN", "nan", "null", "N/A")

_SAMPLE = 1 << 18  # bytes; a larger one costs more time and memory than it saves
_NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?(?i:inf|infinity|nan)"
_WHOLE = r"-?[0-9]{1,19}"
_ANY_WHOLE = r"[-+]?[0-9]+(\.0*)?"
_PADDED = r"[-+]?0[0-9].*"
_LONG_WHOLE = r"\s*-?[0-9]{16,}\s*"
_EXACT = 2**53  # float64 holds whole numbers exactly up to here
_FOREIGN = {b"PK\x03\x04": "a zip file or Excel workbook", b"\x1f\x8b": "a gzip file"}
_EMPTY = dict.fromkeys(KEYS, pa.large_string())
_FAILED_COLUMN = re.compile(r"In CSV column #(\d+): .*")


def read_csv(file: BinaryIO, *, numeric: Collection[str], name: str) -> pa.Table:
    """Read CSV from where a seekable file stands; see `chapkit_flows.data.tables.read_table` for the rules."""
    return _CsvTable(file, numeric, name).read()


def is_stray(column: str) -> bool:
    """Whether a column is an index that was saved without a name."""
    return not column or re.fullmatch(r"Unnamed: \d+|__index_level_\d+__", column) is not None


def check_names(columns: list[str], name: str) -> None:
    """Raise `UnreadableTable` if two columns have one name."""
    twice = sorted({column for column in columns if columns.count(column) > 1 and not is_stray(column)})
    if twice:
        raise UnreadableTable(f"{name} has more than one column named {twice[0]!r}. Rename or remove one of them.")


def numbers_of_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert text to int64 where all values are whole numbers, else to float64; `MISSING` becomes null.

    Raises:
        pyarrow.ArrowInvalid: A value is not a number.
    """
    trimmed = pc.utf8_trim_whitespace(column)
    present = pc.if_else(pc.is_in(trimmed, value_set=pa.array(MISSING, trimmed.type)), None, trimmed)
    whole = pc.all(pc.match_substring_regex(present, f"^(?:{_WHOLE})$"), min_count=0).as_py()
    if whole and present.null_count < len(present):
        try:
            return pc.cast(present, pa.int64())
        except pa.ArrowInvalid:  # too large for int64
            pass
    return pc.cast(present, pa.float64())


def parsing_pool() -> pa.MemoryPool:
    """The allocator that gives back most of what the parser's threads freed; others keep up to a second frame."""
    if "jemalloc" in pa.supported_memory_backends():
        return pa.jemalloc_memory_pool()
    return pa.system_memory_pool()


class _CsvTable:
    """One reading of a file.

    The first rows suggest a type for each column; the parser then converts while it reads, which is several times
    faster and smaller than text. A column that turns out to be otherwise further down is read again. (One thing passes:
    in a column of decimals alone a `01.5` that first appears below the sampled rows is read as 1.5.)
    """

    def __init__(self, file: BinaryIO, numeric: Collection[str], name: str) -> None:
        self._file = file
        self._name = name
        self._start = file.tell()
        self._head = file.read(_SAMPLE)
        self._columns, self._header_lines = self._read_header()
        self._kept = [column for column in self._columns if not is_stray(column)]
        self._declared = {column for column in numeric if column not in KEYS}
        # The parser looks columns up by name, so strays get names of their own that no column has.
        self._labels = [f"\0{i}" if is_stray(column) else column for i, column in enumerate(self._columns)]

    def read(self) -> pa.Table:
        types = self._suggest_types()
        if not types:
            return pa.schema([(column, _EMPTY.get(column, pa.float64())) for column in self._kept]).empty_table()
        table = self._parse(types)
        free = [column for column in self._kept if column not in self._declared and column not in KEYS]
        texts = {column: table.column(column) for column in free if pa.types.is_null(types[column])}
        late = [column for column in free if column not in texts and _has_whole(table.column(column))]
        if late:
            again = self._parse(dict.fromkeys(late, pa.large_string()))
            texts |= {column: again.column(column) for column in late}
        for column, values in texts.items():
            table = table.set_column(table.schema.get_field_index(column), column, _numbers_or_text(values))
        return table

    def _has_rows(self) -> bool:
        return next(self._rows(), None) is not None

    def _read_header(self) -> tuple[list[str], int]:
        if not self._head.removeprefix(b"\xef\xbb\xbf").strip():
            raise EmptyTable(f"{self._name} is empty. Give a table with a header line and rows.")
        for magic, what in _FOREIGN.items():
            if self._head.startswith(magic):
                raise UnreadableTable(f"{self._name} is {what}. Unpack it, or save the table as UTF-8 CSV or Parquet.")
        text = self._decode_head()
        reader = csv.reader(io.StringIO(text, newline=""))
        try:
            columns = next(row for row in reader if row)
        except csv.Error as error:
            raise UnreadableTable(f"{self._name} has no readable header line: {error}. Save it as CSV.") from error
        if len(columns) == 1:
            for separator, word in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")):
                if separator in columns[0]:
                    raise UnreadableTable(
                        f"{self._name} looks separated by {word}: its header line is {columns[0][:80]!r}. "
                        "Save it with commas between the columns (and a point in decimal numbers)."
                    )
        check_names(columns, self._name)
        return columns, reader.line_num

    def _decode_head(self) -> str:
        try:
            return self._head.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # The sample may end within a character.
            if error.start >= len(self._head) - 3 and len(self._head) == _SAMPLE:
                return self._head[: error.start].decode("utf-8-sig")
            raise self._not_utf8() from error

    def _suggest_types(self) -> dict[str, pa.DataType]:
        """The type to parse each kept column as; `null` marks one to be read as text and then converted.

        None at all if there are no rows.
        """
        sample = arrow_csv.read_csv(
            io.BytesIO(self._head + b"\n"),
            read_options=self._read_options(use_threads=False, block_size=2 * _SAMPLE),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda _: "skip"),
            convert_options=_convert_options(dict.fromkeys(self._kept, pa.large_string()), check_utf8=False),
        )
        if len(self._head) == _SAMPLE:
            sample = sample.slice(0, max(sample.num_rows - 1, 0))  # its last value may be cut
        elif sample.num_rows == 0 and not self._has_rows():
            return {}
        return {column: self._suggest_type(column, sample.column(column)) for column in self._kept}

    def _suggest_type(self, column: str, texts: pa.ChunkedArray) -> pa.DataType:
        if column in KEYS:
            return pa.large_string()
        trimmed = pc.utf8_trim_whitespace(texts)
        present = trimmed.filter(pc.invert(pc.is_in(trimmed, value_set=pa.array(MISSING, trimmed.type))))
        if column in self._declared:
            whole = len(present) > 0 and len(present) == len(texts) and _all_match(present, _WHOLE)
            return pa.int64() if whole else pa.float64()
        if not _all_match(present, _NUMBER) or _any_match(present, _PADDED):
            return pa.large_string()
        return pa.null() if _any_match(present, _ANY_WHOLE) else pa.float64()

    def _parse(self, suggested: Mapping[str, pa.DataType]) -> pa.Table:
        types = {column: pa.large_string() if pa.types.is_null(kind) else kind for column, kind in suggested.items()}
        newlines = False
        while True:
            self._file.seek(self._start)
            attempt = _Attempt(self._file)
            try:
                return arrow_csv.read_csv(
                    attempt,
                    read_options=self._read_options(),
                    parse_options=arrow_csv.ParseOptions(newlines_in_values=newlines),
                    convert_options=_convert_options(types, check_utf8=True),
                    memory_pool=parsing_pool(),
                )
            except pa.ArrowInvalid as error:
                attempt.retire()
                found = _FAILED_COLUMN.match(str(error))
                if found is not None and "UTF8" not in str(error):
                    column = self._columns[int(found[1])]
                    types[column] = self._demote(column, types[column], error)
                elif found is None and not newlines:
                    newlines = True  # a line break within quotes fell on the border of two blocks
                else:
                    raise self._explain(error) from error

    def _demote(self, column: str, kind: pa.DataType, error: pa.ArrowInvalid) -> pa.DataType:
        if kind == pa.int64():
            return pa.float64()
        if column in self._declared:
            raise self._not_a_number(column) from error
        return pa.large_string()

    def _read_options(self, **options: Any) -> arrow_csv.ReadOptions:
        return arrow_csv.ReadOptions(column_names=self._labels, skip_rows=self._header_lines, **options)

    def _explain(self, error: pa.ArrowInvalid) -> UnreadableTable:
        if "UTF8" in str(error):
            return self._not_utf8()
        width = len(self._columns)
        for line, row in self._rows():
            if len(row) != width:
                return UnreadableTable(
                    f"{self._name} line {line} has {len(row)} values, but its header line names {width} columns. "
                    "Correct the line; put quotes around text that contains a comma."
                )
        return UnreadableTable(
            f"{self._name} is not a CSV table that can be read: {error}. Save it again as UTF-8 CSV."
        )

    def _not_a_number(self, column: str) -> UnreadableTable:
        at = self._columns.index(column)
        number = re.compile(_NUMBER)
        for line, row in self._rows():
            value = row[at].strip() if at < len(row) else ""
            if value not in MISSING and not number.fullmatch(value):
                return UnreadableTable(
                    f"{self._name} column {column!r} must hold numbers, but line {line} has {value[:80]!r}. "
                    "Write a plain number with a point, or leave the cell empty."
                )
        return UnreadableTable(f"{self._name} column {column!r} must hold numbers. Write plain numbers with a point.")

    def _not_utf8(self) -> UnreadableTable:
        where = ""
        self._file.seek(self._start)
        for number, line in enumerate(self._file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                where = f": line {number} cannot be decoded"
                break
        return UnreadableTable(
            f"{self._name} is not UTF-8 text{where}. Save it as UTF-8 (in a spreadsheet: 'CSV UTF-8'), or as Parquet."
        )

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows below the header with the lines they start on: slow, to find what a message must name."""
        self._file.seek(self._start)
        text = io.StringIO(self._file.read().decode("utf-8-sig", errors="replace"), newline="")
        reader = csv.reader(text)
        line = 1
        try:
            for row in reader:
                if row and line > self._header_lines:
                    yield line, row
                line = reader.line_num + 1
        except csv.Error:
            return


class _Attempt:
    """A view of a file for one reading, which can be ended.

    The parser reads ahead in a thread of its own and may still do so when it has already refused the table.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            return b"" if self.closed else self._file.read(size)

    def retire(self) -> None:
        with self._lock:
            self.closed = True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Leave the file open: its owner closes it."""


def _convert_options(types: Mapping[str, pa.DataType], *, check_utf8: bool) -> arrow_csv.ConvertOptions:
    return arrow_csv.ConvertOptions(
        column_types=dict(types),
        include_columns=list(types),
        null_values=list(MISSING),
        strings_can_be_null=False,
        check_utf8=check_utf8,
    )


def _numbers_or_text(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    # Codes are padded with zeros, and a number would lose them.
    if any(_has_padded(chunk) for chunk in texts.chunks) and _any_match(texts, rf"\s*(?:{_PADDED})"):
        return texts
    try:
        numbers = numbers_of_text(texts)
    except pa.ArrowInvalid:
        return texts
    return texts if _is_inexact(numbers) and _any_match(texts, _LONG_WHOLE) else numbers


def _is_inexact(numbers: pa.ChunkedArray) -> bool:
    """Whether a frame would hold large whole numbers of the column as rounded float64."""
    if pa.types.is_integer(numbers.type) and numbers.null_count == 0:
        return False
    bounds = pc.min_max(numbers).as_py().values()
    return any(bound is not None and abs(bound) >= _EXACT for bound in bounds)


def _has_padded(texts: pa.Array) -> bool:
    """Whether a value may begin with a zero and a digit: cheap, and true for some that do not (` 0`, `-1`)."""
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    content = texts.buffers()[2]
    if content is None or len(texts) == 0:
        return False
    letters = np.concatenate([np.frombuffer(content, dtype=np.uint8)[: offsets[-1]], np.zeros(2, dtype=np.uint8)])
    first, second = letters[offsets[:-1]], letters[offsets[:-1] + 1]
    long = np.diff(offsets) > 1
    digits = (second >= ord("0")) & (second <= ord("9"))
    return bool(np.any(long & ((first < ord("0")) | ((first == ord("0")) & digits))))


def _has_whole(values: pa.ChunkedArray) -> bool:
    return pa.types.is_floating(values.type) and pc.any(pc.equal(values, pc.trunc(values))).as_py() is True


def _all_match(texts: pa.ChunkedArray, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(texts, f"^(?:{pattern})$"), min_count=0).as_py() is True


def _any_match(texts: pa.ChunkedArray, pattern: str) -> bool:
    return pc.any(pc.match_substring_regex(texts, f"^(?:{pattern})$")).as_py() is True
