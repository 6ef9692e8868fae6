"""What a model may return as predictions."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from chapkit_flows.data.panels import Panel
from chapkit_flows.data.periods import canonical_period
from chapkit_flows.data.tables import read_table
from chapkit_flows.errors import InvalidPeriod, InvalidPrediction
from chapkit_flows.models.shell import ShellPrediction

_SAMPLE = re.compile(r"sample_\d+")
_KEYS = ["time_period", "location"]
_REMEDY = "Return time_period, location and sample_0, sample_1, … (or prediction), one row for each row of future."


def check_predictions(returned: object, future: Panel) -> pd.DataFrame:
    """Check what a model returned and bring it to the form that is stored.

    Returns:
        `time_period`, `location`, then `sample_0` … `sample_N` or `prediction` as float64; one row for each row
        of `future`, in its order.

    Raises:
        InvalidPrediction: It is no frame, has other columns, lacks or repeats a place and period, or has a value
            that is not a finite number.
    """
    if not isinstance(returned, pd.DataFrame):
        raise InvalidPrediction(f"on_predict returned {type(returned).__name__}, not a frame. {_REMEDY}")
    twice = returned.columns[returned.columns.duplicated()].unique().tolist()
    if twice:
        raise InvalidPrediction(f"The predictions have more than one column {twice[0]!r}. {_REMEDY}")
    returned = returned.reset_index(drop=True)
    missing = [name for name in _KEYS if name not in returned.columns]
    if missing:
        raise InvalidPrediction(
            f"The predictions have no column {' and no '.join(missing)}; they have {_names(returned)}. {_REMEDY}"
        )
    columns = _value_columns(returned)
    frame = _with_keys(returned)
    _check_rows(frame, future)
    ordered = future.frame[_KEYS].merge(frame[[*_KEYS, *columns]], on=_KEYS, how="left", sort=False)
    if all(dtype.kind in "iuf" for dtype in ordered[columns].dtypes):
        values = ordered[columns].to_numpy("float64")
        if np.isfinite(values).all():
            return pd.concat([ordered[_KEYS], pd.DataFrame(values, columns=columns)], axis=1)
    for column in columns:
        ordered[column] = _numbers(ordered, column)
    return ordered


def read_predictions(returned: object, future: Panel) -> pd.DataFrame:
    """The predictions that a model returned, or that its command wrote, as `check_predictions` gives them.

    Raises:
        InvalidPrediction: As `check_predictions` raises it.
        UnreadableTable: The command wrote no table.
    """
    if not isinstance(returned, ShellPrediction):
        return check_predictions(returned, future)
    with returned.file.open("rb") as file:
        frame = read_table(file, media_type="text/csv", name=returned.file.name)
    return check_predictions(frame, future)


def _names(frame: pd.DataFrame) -> str:
    return ", ".join(map(str, frame.columns[:12])) or "no columns"


def _value_columns(frame: pd.DataFrame) -> list[str]:
    samples = [str(name) for name in frame.columns if _SAMPLE.fullmatch(str(name))]
    expected = [f"sample_{number}" for number in range(len(samples))]
    if samples and sorted(samples) != sorted(expected):
        raise InvalidPrediction(
            f"The sample columns are not numbered from 0 without a gap: {', '.join(samples[:12])}. {_REMEDY}"
        )
    if samples:
        return expected
    if "prediction" in frame.columns:
        return ["prediction"]
    raise InvalidPrediction(f"The predictions have no values; their columns are {_names(frame)}. {_REMEDY}")


def _with_keys(returned: pd.DataFrame) -> pd.DataFrame:
    frame = returned.assign(location=returned["location"].astype("str"))
    periods = returned["time_period"].astype("str")
    try:
        written = {text: canonical_period(text) for text in periods.unique()}
    except InvalidPeriod as error:
        raise InvalidPrediction(f"In the predictions: {error}") from error
    return frame.assign(time_period=periods.map(written).astype("str"))


def _check_rows(frame: pd.DataFrame, future: Panel) -> None:
    keys = pd.MultiIndex.from_frame(frame[_KEYS])
    if keys.has_duplicates:
        period, place = keys[keys.duplicated()][0]
        raise InvalidPrediction(
            f"The predictions repeat {int(keys.duplicated().sum())} rows, such as {place} in {period}. {_REMEDY}"
        )
    wanted = pd.MultiIndex.from_frame(future.frame[_KEYS])
    if keys.equals(wanted):
        return
    for left, right, what in ((wanted, keys, "lack"), (keys, wanted, "have, beyond those of future,")):
        extra = left.difference(right)
        if len(extra):
            period, place = extra[0]
            raise InvalidPrediction(
                f"The predictions {what} {len(extra)} rows, such as {place} in {period} "
                f"({len(keys)} rows came, {len(wanted)} are wanted). {_REMEDY}"
            )


def _numbers(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    if frame[column].dtype.kind not in "iufO" and not pd.api.types.is_string_dtype(frame[column].dtype):
        raise InvalidPrediction(
            f"The values of {column} are of the type {frame[column].dtype}. Return a number for each place and period."
        )
    values = pd.to_numeric(frame[column], errors="coerce").astype("float64")
    bad = ~np.isfinite(values.to_numpy())
    if bad.any():
        row = frame.loc[bad].iloc[0]
        raise InvalidPrediction(
            f"{int(bad.sum())} values of {column} are not finite numbers, such as {row[column]!r} for "
            f"{row['location']} in {row['time_period']}. Return a number for each place and period."
        )
    return values
