"""Tables of place and period: read from CSV or Parquet, written to CSV."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from chapkit_flows.data.delimited import KEYS, check_names, is_stray, numbers_of_text, parsing_pool, read_csv
from chapkit_flows.data.sources import mask_uri, media_type_of, open_source
from chapkit_flows.errors import UnreadableTable

__all__ = ["mask_uri", "media_type_of", "open_source", "read_table", "write_csv"]

_ROWS_PER_BLOCK = 65_536


def read_table(file: BinaryIO, *, media_type: str, numeric: Collection[str] = (), name: str = "data") -> pd.DataFrame:
    """Read a table from where `file` stands.

    `time_period` and `location` are always text: codes such as `001`, `NA` and `true` stay as they are. Of the other
    columns those in `numeric` are numbers. The rest are numbers only if every value is a plain number without leading
    zeros; yes and no, truth values and dates stay text. In a column of numbers an empty cell, `NA`, `NaN`, `nan`,
    `null` and `N/A` are missing; in a text column they are text. A column without a name, or named `Unnamed: 0`, is a
    stray index and is dropped.

    Args:
        file: Bytes that can be sought.
        media_type: As `media_type_of` tells it.
        numeric: Columns that must be numbers, if they are there; leading zeros are allowed in them.
        name: What the messages call the table.

    Returns:
        Columns of int64, float64 and str; from Parquet also bool.

    Raises:
        UnreadableTable: The bytes are no such table, or a column in `numeric` holds text.
    """
    if media_type == "text/csv":
        table = read_csv(file, numeric=numeric, name=name)
    elif media_type == "application/vnd.apache.parquet":
        table = _read_parquet(file, numeric=numeric, name=name)
    else:
        raise UnreadableTable(f"{name} is {media_type}, not a table. Give CSV or Parquet.")
    # Each column is freed as soon as it is converted; together they would take the memory of two frames.
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True, ignore_metadata=True)
    del table
    parsing_pool().release_unused()
    return frame


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table that `read_table` reads back as it was: numbers exact, text unchanged, missing values empty."""
    with path.open("wb") as file:
        file.write((",".join(_quoted(pa.array(frame.columns.astype("str"), pa.string())).to_pylist()) + "\n").encode())
        for start in range(0, len(frame), _ROWS_PER_BLOCK):
            block = frame.iloc[start : start + _ROWS_PER_BLOCK]
            columns = [_rendered(block.iloc[:, at]) for at in range(block.shape[1])]
            lines = pc.binary_join_element_wise(*columns, ",")
            file.write("\n".join([*lines.to_pylist(), ""]).encode())


def _read_parquet(file: BinaryIO, *, numeric: Collection[str], name: str) -> pa.Table:
    try:
        source = parquet.ParquetFile(file)
        columns = list(source.schema_arrow.names)
        check_names(columns, name)
        kept = [column for column in columns if not is_stray(column)]
        table = source.read(columns=kept)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(f"{name} is not a readable Parquet file: {error}. Save it again.") from error
    return pa.table(dict(_converted_columns(table, numeric=numeric, name=name)))


def _converted_columns(
    table: pa.Table, *, numeric: Collection[str], name: str
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    for column in table.column_names:
        values = table.column(column)
        if pa.types.is_dictionary(values.type):
            values = pc.cast(values, values.type.value_type)
        if column in KEYS:
            yield column, _key(values, column=column, name=name)
        elif column in numeric:
            yield column, _number(values, column=column, name=name)
        else:
            yield column, _plain(values, column=column, name=name)


def _key(values: pa.ChunkedArray, *, column: str, name: str) -> pa.ChunkedArray:
    if _is_text(values.type) or pa.types.is_integer(values.type) or pa.types.is_null(values.type):
        return pc.cast(values, pa.large_string())
    if column == "time_period" and pa.types.is_date(values.type):
        return pc.cast(pc.cast(values, pa.date32()), pa.large_string())
    raise UnreadableTable(
        f"{name} column {column!r} has the Parquet type {values.type}. Save it as text"
        + (", with periods such as 2020-01 or 2020-W05; days may be dates." if column == "time_period" else ".")
    )


def _number(values: pa.ChunkedArray, *, column: str, name: str) -> pa.ChunkedArray:
    if not _is_text(values.type):
        converted = _plain(values, column=column, name=name)
        if not _is_text(converted.type):
            return converted
    try:
        return numbers_of_text(pc.cast(values, pa.large_string()))
    except pa.ArrowInvalid as error:
        raise UnreadableTable(
            f"{name} column {column!r} must hold numbers, but row {_first_text(values)}. Save it as numbers."
        ) from error


def _first_text(values: pa.ChunkedArray) -> str:
    for row, value in enumerate(pc.cast(values, pa.large_string()).to_pylist(), start=1):
        try:
            numbers_of_text(pa.chunked_array([[value]], pa.large_string()))
        except pa.ArrowInvalid:
            return f"{row} has {value[:80]!r}"
    return "1 has text"


def _plain(values: pa.ChunkedArray, *, column: str, name: str) -> pa.ChunkedArray:
    kind = values.type
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return pc.cast(values, pa.int64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return pc.cast(values, pa.float64(), safe=False)
    if pa.types.is_boolean(kind) and values.null_count == 0:
        return values
    if _is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        return pc.cast(values, pa.large_string())
    raise UnreadableTable(
        f"{name} column {column!r} has the Parquet type {kind}. Keep columns of numbers and text, and remove this one."
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _rendered(column: pd.Series) -> pa.Array:
    values = pa.array(column, from_pandas=True)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_floating(values.type):
        texts = pc.cast(values, pa.string())
        # Without the point a column of whole numbers would come back as integers.
        whole = pc.match_substring_regex(texts, r"^-?[0-9]+$")
        texts = pc.if_else(whole, pc.binary_join_element_wise(texts, "0", "."), texts)
    else:
        texts = _quoted(pc.cast(values, pa.string()))
    return pc.fill_null(texts, "")


def _quoted(texts: pa.Array) -> pa.Array:
    """Put quotes around the values that need them: those with a comma, a quote or a line break."""
    special = pc.match_substring_regex(texts, '[",\r\n]')
    doubled = pc.replace_substring(texts, '"', '""')
    return pc.if_else(special, pc.binary_join_element_wise('"', doubled, '"', ""), texts)
