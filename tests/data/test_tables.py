"""Tables: what is read from CSV and Parquet, what is refused, and that writing loses nothing."""

from __future__ import annotations

import io
import math
from datetime import date, time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from chapkit_flows.data.tables import read_table, write_csv
from chapkit_flows.errors import EmptyTable, UnreadableTable

PARQUET = "application/vnd.apache.parquet"
MEGABYTE = 1 << 20


def read(content: str | bytes, **options: Any) -> pd.DataFrame:
    data = content.encode() if isinstance(content, str) else content
    return read_table(io.BytesIO(data), media_type="text/csv", **options)


def column(values: list[str], **options: Any) -> pd.Series:
    """The values as the column `x` of a CSV table."""
    return read("\n".join(["time_period,x", *(f"2020-01,{value}" for value in values)]), **options)["x"]


def read_parquet(table: pa.Table, **options: Any) -> pd.DataFrame:
    file = io.BytesIO()
    parquet.write_table(table, file)
    file.seek(0)
    return read_table(file, media_type=PARQUET, **options)


@pytest.mark.parametrize("code", ["001", "NA", "true", "", "1e5", "null", "2020-01-01", "  x ", "Đà Nẵng"])
def test_locations_are_text(code: str) -> None:
    """A location stays as it is written, whatever it looks like."""
    frame = read(f"time_period,location,x\n202001,{code},1\n")
    assert [code] == frame["location"].tolist()
    assert ["202001"] == frame["time_period"].tolist()


@pytest.mark.parametrize(
    "values",
    [
        ["001", "002"],
        ["10", "007"],
        ["1.5", "-01"],
        ["0x1A", "1"],
        ["yes", "no"],
        ["true", "false"],
        ["True", "False"],
        ["2020-01-01", "2020-01-02"],
        ["a", "NA"],
        ["NA", "b", ""],
        ["1", "two"],
        ["1,5"],
        ["12:30", "12:31"],
        ["12345678901234567890", "1"],
        ["1234567890123456789", ""],
        ["1_000"],
    ],
)
def test_columns_of_other_things_stay_text(values: list[str]) -> None:
    """A column is text, unchanged, as soon as one value is not a plain number."""
    assert values == column([f'"{value}"' for value in values]).tolist()


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ([0, 7, -7], ["0", "7", "-7"]),
        ([1234567890123456789], ["1234567890123456789"]),
        ([0.5, 0.0, -0.25], ["0.5", "0", "-.25"]),
        ([1e-7, 1e22, 5.0], ["1e-7", "1E+22", "+5."]),
        ([1.0, 2.0], [" 1", "2 "]),
        ([math.inf, -math.inf, 1.0], ["inf", "-inf", "1"]),
    ],
)
def test_plain_numbers_become_numbers(expected: list[float], values: list[str]) -> None:
    """Whole numbers become int64, others float64, exactly."""
    found = column(values)
    assert expected == found.tolist()
    assert ("i" if all(isinstance(value, int) for value in expected) else "f") == found.dtype.kind or values[0] == " 1"


@pytest.mark.parametrize("missing", ["", "NA", "NaN", "nan", "null", "N/A"])
@pytest.mark.parametrize("numeric", [(), ("x",)])
def test_missing_numbers(missing: str, numeric: tuple[str, ...]) -> None:
    """Each mark of a missing value in a column of numbers is read as missing."""
    found = column(["1", missing, "2.5"], numeric=numeric)
    assert [1.0, None, 2.5] == [None if math.isnan(value) else value for value in found]


def test_a_column_without_values_is_one_of_missing_numbers() -> None:
    """A column that is empty throughout has the type float64."""
    assert [True, True] == column(["", "NA"]).isna().tolist()
    assert "float64" == str(column(["", "NA"]).dtype)


def test_codes_are_numbers_where_numbers_are_asked_for() -> None:
    """Leading zeros are allowed in a column that must hold numbers."""
    assert [7.0, 10.0] == column(["007", "10"], numeric=["x"]).tolist()


@pytest.mark.parametrize("late", ["007", "yes", "x" * 100])
@pytest.mark.parametrize("early", ["1.5", "12"])
def test_what_stands_beyond_the_first_megabyte_counts(late: str, early: str) -> None:
    """A column whose numbers end after a megabyte is text from its first row on."""
    values = [early] * (MEGABYTE // 10) + [late]
    assert values == column(values).tolist()


def test_whole_numbers_turn_to_decimals_beyond_the_first_megabyte() -> None:
    """A declared column that begins with whole numbers may go on with decimals and missing values."""
    found = column(["12"] * (MEGABYTE // 10) + ["0.5", ""], numeric=["x"])
    assert "float64" == str(found.dtype)
    assert [12.0, 0.5] == [found.iloc[0], found.iloc[-2]]
    assert math.isnan(found.iloc[-1])


def test_line_breaks_in_quotes_on_the_border_of_two_blocks() -> None:
    """Quoted text with commas, quotes and line breaks is read over any block border."""
    value = 'a "b",\n' * 40
    quoted = '"' + value.replace('"', '""') + '"'
    rows = 3 * MEGABYTE // len(quoted)
    found = read("time_period,location,x\n" + f"2020-01,{quoted},1\n" * rows)
    assert [value] == found["location"].unique().tolist()
    assert rows == len(found)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark(line_end: str, mark: str) -> None:
    """All three line ends are read, with and without a byte order mark, and blank lines are skipped."""
    lines = [f"{mark}time_period,location,x", "2020-01,a,1", "", "2020-02,ä,2", ""]
    frame = read(line_end.join(lines))
    assert [("2020-01", "a", 1), ("2020-02", "ä", 2)] == list(frame.itertuples(index=False, name=None))
    assert ["time_period", "location", "x"] == list(frame.columns)


@pytest.mark.parametrize("header", ["", '""', "Unnamed: 0"])
def test_stray_indexes_are_dropped(header: str) -> None:
    """A column without a name is no column."""
    assert ["time_period", "location"] == list(read(f"{header},time_period,location\n0,2020-01,a\n").columns)


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_header_only(end: str) -> None:
    """A table of a header line alone has its columns and no rows."""
    frame = read("time_period,location,x" + end)
    assert (0, 3) == frame.shape
    assert ["str", "str", "float64"] == [str(kind) for kind in frame.dtypes]


def test_reading_starts_where_the_file_stands() -> None:
    """Bytes before the position of the file are not part of the table, and the file stays open."""
    file = io.BytesIO(b"junk;junk\ntime_period,location\n2020-01,a\n")
    file.readline()
    assert ["a"] == read_table(file, media_type="text/csv")["location"].tolist()
    assert not file.closed


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("the table looks separated by ';'", b"time_period;location;x\n2020-01;a;1\n"),
        ("the table looks separated by tabs", b"time_period\tlocation\n2020-01\ta\n"),
        ("the table has more than one column named 'x'", b"time_period,x,x\n2020-01,1,2\n"),
        ("the table line 3 has 2 values, but its header line names 3 columns", b"a,b,c\n1,2,3\n4,5\n"),
        ("the table line 4 has 4 values, but its header line names 3 columns", b"a,b,c\n1,2,3\n\n4,5,6,7\n"),
        ("the table is not UTF-8 text: line 3 cannot be decoded", b"time_period,location\n2020-01,a\n2020-02,\xe9\n"),
        ("the table is not UTF-8 text: line 1", "time_period,location\n".encode("utf-16")),
        ("the table is a zip file or Excel workbook", b"PK\x03\x04rest"),
        ("the table is a gzip file", b"\x1f\x8brest"),
    ],
)
def test_refused_csv(message: str, content: bytes) -> None:
    """What is no table is refused by a message that names the table, the place and the reason."""
    with pytest.raises(UnreadableTable) as caught:
        read(content, name="the table")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf"])
def test_empty_csv(content: bytes) -> None:
    """A file without even a header line is refused by an error of its own."""
    with pytest.raises(EmptyTable, match="the table is empty"):
        read(content, name="the table")


def test_bad_utf8_beyond_the_first_megabyte() -> None:
    """The line that is not UTF-8 is found anywhere in the file."""
    good = b"2020-01,a,1.5\n" * (MEGABYTE // 10)
    with pytest.raises(UnreadableTable, match=f"line {MEGABYTE // 10 + 2} cannot be decoded"):
        read(b"time_period,location,x\n" + good + b"2020-01,\xe9,1\n")


@pytest.mark.parametrize("before", [0, MEGABYTE // 10])
def test_text_in_a_column_of_numbers(before: int) -> None:
    """The first value that is not a number is named with its line and column, wherever it stands."""
    with pytest.raises(UnreadableTable) as caught:
        column(["1"] * before + ["NA", " 2 ", "many", "few"], numeric=["x"], name="historic")
    assert f"historic column 'x' must hold numbers, but line {before + 4} has 'many'" in str(caught.value)


def test_lines_are_counted_over_line_breaks_in_quotes() -> None:
    """The named line is that of the file, also when a value spans two lines."""
    with pytest.raises(UnreadableTable, match="line 4 has 'bad'"):
        read('time_period,location,x\n2020-01,"a\nb",1\n2020-02,c,bad\n', numeric=["x"])


def test_absent_declared_columns_are_left_to_the_check() -> None:
    """A column in `numeric` that is not there is no error of reading."""
    assert ["time_period"] == list(read("time_period\n2020-01\n", numeric=["x"]).columns)


def test_other_media_types_are_refused() -> None:
    """GeoJSON in the place of a table is named."""
    with pytest.raises(UnreadableTable, match="data is application/geo"):
        read_table(io.BytesIO(b"{}"), media_type="application/geo+json")


def test_parquet_columns_keep_their_meaning() -> None:
    """Codes become text, numbers 64 bits wide, dates text; the saved index goes."""
    frame = read_parquet(
        pa.table(
            {
                "time_period": pa.array([202001, 202002], pa.int32()),
                "location": pa.array(["001", "NA"]).dictionary_encode(),
                "small": pa.array([1, None], pa.int8()),
                "whole": pa.array([1, 2], pa.int16()),
                "flag": [True, False],
                "day": [date(2020, 1, 1), None],
                "code": ["007", "8"],
                "counted": ["007", ""],
                "__index_level_0__": [0, 1],
            }
        ),
        numeric=["counted"],
    )
    assert [("202001", "001"), ("202002", "NA")] == list(
        frame[["time_period", "location"]].itertuples(index=False, name=None)
    )
    assert ["float64", "int64", "bool", "str", "str", "float64"] == [str(kind) for kind in frame.dtypes[2:]]
    assert ["2020-01-01", "007", 7.0] == frame[["day", "code", "counted"]].iloc[0].tolist()


@pytest.mark.parametrize(
    ("message", "table"),
    [
        ("column 'time_period' has the Parquet type time", {"time_period": [time(12)], "x": [1]}),
        ("column 'location' has the Parquet type date32", {"location": [date(2020, 1, 1)], "x": [1]}),
        ("column 'location' has the Parquet type double", {"location": [1.0], "x": [1]}),
        ("column 'y' has the Parquet type list", {"y": [[1]], "x": [1]}),
        ("column 'x' must hold numbers, but row 2 has 'many'", {"x": ["1", "many"]}),
        ("column 'x' must hold numbers, but row 1 has '2020-01-01'", {"x": [date(2020, 1, 1)]}),
    ],
)
def test_refused_parquet(message: str, table: dict[str, list[Any]]) -> None:
    """A Parquet column of the wrong type is named with its type."""
    with pytest.raises(UnreadableTable) as caught:
        read_parquet(pa.table(table), numeric=["x"], name="future")
    assert f"future {message}" in str(caught.value)


def test_dates_are_days() -> None:
    """Dates in Parquet are the periods of a daily table."""
    frame = read_parquet(pa.table({"time_period": [date(2020, 2, 29)], "x": [1]}), numeric=["x"], name="data")
    assert ["2020-02-29"] == frame["time_period"].tolist()


@pytest.mark.parametrize("content", [b"", b"PAR1 is all there is", b"PAR1" + bytes(100) + b"PAR1"])
def test_corrupt_parquet(content: bytes) -> None:
    """A file that only looks like Parquet is refused."""
    with pytest.raises(UnreadableTable, match="data is not a readable Parquet file"):
        read_table(io.BytesIO(content), media_type=PARQUET)


NASTY = st.one_of(
    st.sampled_from(["001", "NA", "true", "null", "1e5", "", " ", '"', ",", "a,b", "\n", "\r\n", "\r", "'", "\ufeff"]),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=8),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            NASTY,
            NASTY,
            st.integers(-(2**63), 2**63 - 1),
            st.floats() | st.sampled_from([5.0, -0.0, 1e22, 5e-324]),
            NASTY,
        ),
        max_size=5,
    )
)
def test_write_then_read_gives_the_same_frame(tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    """Text with any characters, integers and floats come back exactly."""
    names = ["time_period", "location", "whole", "real", 'note, "quoted"']
    rows.append(("2020-01", "x", 1, 0.5, "text"))  # so that no column is without a value
    kinds = dict.fromkeys((*names[:2], names[4]), "str") | {"whole": "int64", "real": "float64"}
    frame = pd.DataFrame(rows, columns=names).astype(kinds)
    write_csv(frame, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open("rb") as file:
        back = read_table(file, media_type="text/csv")
    pd.testing.assert_frame_equal(frame, back, check_exact=True)
    assert (np.signbit(frame["real"]) == np.signbit(back["real"])).where(frame["real"].notna(), True).all()


def test_written_csv_is_plain(tmp_path: Path) -> None:
    """Quotes stand only where they are needed, missing values are empty, lines end with a line feed."""
    frame = pd.DataFrame(
        {"time_period": ["2020-01"] * 2, "location": ["001", "a,b"], "x": [1.0, None], "flag": [True, False]}
    )
    write_csv(frame, tmp_path / "table.csv")
    assert (
        b'time_period,location,x,flag\n2020-01,001,1.0,true\n2020-01,"a,b",,false\n'
        == (tmp_path / "table.csv").read_bytes()
    )


def test_long_tables_are_written_whole(tmp_path: Path) -> None:
    """A table of more rows than are written at once comes back in order."""
    count = 150_000
    frame = pd.DataFrame({"time_period": ["2020-01"] * count, "location": ["a"] * count, "x": range(count)})
    write_csv(frame, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open("rb") as file:
        pd.testing.assert_frame_equal(frame, read_table(file, media_type="text/csv"))


@pytest.mark.parametrize(
    ("rows", "places", "name"),
    [
        (108, 3, "laos_subset/laos_subset.csv"),
        (11_571, 57, "vnm_dengue_monthly/vietnam_monthly.csv"),
        (9_840, 10, "nicaragua_weekly/nicaragua_weekly_data.csv"),
    ],
)
def test_real_tables(rows: int, places: int, name: str, shared: Path, tmp_path: Path) -> None:
    """Real tables are read as pandas reads them, and survive being written and read."""
    with (shared / name).open("rb") as file:
        frame = read_table(file, media_type="text/csv", numeric=["disease_cases"])
    expected = pd.read_csv(shared / name).drop(columns="Unnamed: 0", errors="ignore")
    pd.testing.assert_frame_equal(expected, frame, check_exact=True)
    assert (rows, places) == (len(frame), frame["location"].nunique())
    write_csv(frame, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open("rb") as file:
        pd.testing.assert_frame_equal(frame, read_table(file, media_type="text/csv"), check_exact=True)
