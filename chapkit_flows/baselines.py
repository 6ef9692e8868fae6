"""Three simple models that any other must beat: persistence, seasonal naive and climatology.

Each can be trained, deployed and asked to predict by name: `chapkit-flows train climatology --data …`. They need no
covariates. What they learn is a table, which is kept as Parquet and loaded without a pickle. Samples are drawn with a
seed, for each place on its own: the forecasts of a place do not depend on which other places are asked for. Where no
value before the forecast is negative no sample is, and where all are whole numbers so are the samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.data.periods import period_ordinal, place_in_year, season_of
from chapkit_flows.errors import DataError
from chapkit_flows.flows.model import Model
from chapkit_flows.models.definition import Definition
from chapkit_flows.models.functional import FunctionalModelRunner

TARGET = "disease_cases"

Numbers = NDArray[np.float64]
Sampler = Callable[["_Request"], Numbers]


class BaselineConfig(ModelConfig):
    """Settings of a baseline."""

    n_samples: int = Field(default=200, ge=1, description="Samples to draw per place and period.")
    seed: int = Field(default=0, ge=0, description="Start of the random numbers: equal seeds give equal forecasts.")


class PersistenceConfig(BaselineConfig):
    """Settings of the persistence baseline."""


class SeasonalNaiveConfig(BaselineConfig):
    """Settings of the seasonal naive baseline."""


class ClimatologyConfig(BaselineConfig):
    """Settings of the climatology baseline."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Request:
    """One place, the periods to forecast for it, and what is known.

    Attributes:
        periods: To forecast, in order of time.
        past: The known values of the place before the forecast, by period, in order of time.
        elsewhere: The known values of all places before the forecast.
        learnt: What was learnt of the place, `season` and `value`; empty for one that was not trained on.
        size: How many samples of each.
        random: The place's own random numbers.
    """

    periods: list[str]
    past: pd.Series[float]
    elsewhere: Numbers
    learnt: pd.DataFrame
    size: int
    random: np.random.Generator

    def anywhere(self) -> Numbers:
        """Values drawn from all places, for a place of which nothing is known."""
        return self.random.choice(self.elsewhere, (len(self.periods), self.size))


def _known(data: pd.DataFrame) -> pd.DataFrame:
    if TARGET not in data.columns or data[TARGET].isna().all():
        raise DataError(f"The data has no value of {TARGET!r}, which this baseline continues. Fill it in.")
    known = data.loc[data[TARGET].notna(), ["time_period", "location", TARGET]].astype({TARGET: "float64"})
    return known.sort_values(["location", "time_period"]).reset_index(drop=True)


def _learnt(known: pd.DataFrame, values: pd.Series[float], season_of: Callable[[str], int] = season_of) -> pd.DataFrame:
    """A value for each known row, with its place and season; rows without one are left out."""
    seasons = known["time_period"].map({text: season_of(text) for text in known["time_period"].unique()})
    table = known[["location"]].assign(season=seasons.astype("int64"), value=values)
    return table[values.notna()].reset_index(drop=True)


def _runner(learn: Callable[[pd.DataFrame], pd.DataFrame], sample: Sampler) -> FunctionalModelRunner:
    """The two functions of a model, of one that learns from known rows and one that draws samples for a place."""

    def on_train(config: Any, data: pd.DataFrame, geo: Any = None) -> pd.DataFrame:
        return learn(_known(data))

    def on_predict(
        config: Any, model: pd.DataFrame, historic: pd.DataFrame, future: pd.DataFrame, geo: Any = None
    ) -> pd.DataFrame:
        known = _known(historic)
        values = np.concatenate(list(_sampled(model, known, future, sample, config)))
        past = known[TARGET].to_numpy(dtype="float64")
        if (past == np.round(past)).all():
            values = np.round(values)
        if (past >= 0).all():
            values = np.maximum(values, 0)
        keys = future[["time_period", "location"]].sort_values(["location", "time_period"]).reset_index(drop=True)
        names = [f"sample_{number}" for number in range(values.shape[1])]
        return pd.concat([keys, pd.DataFrame(values, columns=names)], axis=1)

    return FunctionalModelRunner(on_train, on_predict)


def _sampled(
    model: pd.DataFrame, known: pd.DataFrame, future: pd.DataFrame, sample: Sampler, config: Any
) -> Iterator[Numbers]:
    past, learnt = dict(list(known.groupby("location"))), dict(list(model.groupby("location")))
    for place, rows in future.groupby("location", sort=True):
        yield sample(
            _Request(
                periods=sorted(rows["time_period"]),
                past=past.get(place, known.iloc[:0]).set_index("time_period")[TARGET],
                elsewhere=known[TARGET].to_numpy(),
                learnt=learnt.get(place, model.iloc[:0]),
                size=config.n_samples,
                random=np.random.default_rng([config.seed, zlib.crc32(str(place).encode())]),
            )
        )


def _symmetric(changes: pd.Series[float]) -> Numbers:
    """Changes and their opposites: without a trend, and with the last value as the median."""
    one_way = changes.to_numpy(dtype="float64") if len(changes) else np.zeros(1)
    return np.concatenate([one_way, -one_way])


def _learn_changes(known: pd.DataFrame) -> pd.DataFrame:
    """The changes from each period to the next where both are known."""
    ordinals = known["time_period"].map({text: period_ordinal(text) for text in known["time_period"].unique()})
    changes = known.groupby("location")[TARGET].diff()
    return _learnt(known, changes.where(ordinals.groupby(known["location"]).diff() == 1))


def _sample_persistence(request: _Request) -> Numbers:
    if request.past.empty:
        return request.anywhere()
    last = period_ordinal(str(request.past.index[-1]))
    steps = [max(1, period_ordinal(period) - last) for period in request.periods]
    changes = _symmetric(request.learnt["value"])
    paths = request.random.choice(changes, (steps[-1], request.size)).cumsum(axis=0)
    return np.asarray(request.past.iloc[-1] + paths[np.array(steps) - 1], dtype="float64")


def _learn_yearly_changes(known: pd.DataFrame) -> pd.DataFrame:
    """The changes from each period to the same one of the next year that is known."""
    seasons = _learnt(known, known[TARGET], place_in_year)["season"]
    return _learnt(known, known[TARGET].groupby([known["location"], seasons]).diff(), place_in_year)


def _sample_seasonal_naive(request: _Request) -> Numbers:
    if request.past.empty:
        return request.anywhere()
    last_of_season = request.past.groupby([place_in_year(str(period)) for period in request.past.index]).last()
    # A season that was never seen starts from the last value, as persistence does.
    start = [last_of_season.get(place_in_year(period), request.past.iloc[-1]) for period in request.periods]
    drawn = request.random.choice(_symmetric(request.learnt["value"]), (len(request.periods), request.size))
    samples: Numbers = np.asarray(start, dtype="float64")[:, None] + drawn
    return samples


def _learn_seasons(known: pd.DataFrame) -> pd.DataFrame:
    """The values of all years."""
    return _learnt(known, known[TARGET])


def _sample_climatology(request: _Request) -> Numbers:
    if request.learnt.empty:
        return request.anywhere()
    of_season: dict[Any, Numbers] = {
        season: rows.to_numpy() for season, rows in request.learnt.groupby("season")["value"]
    }
    everything = request.learnt["value"].to_numpy()
    choices = [of_season.get(season_of(period), everything) for period in request.periods]
    return np.array([request.random.choice(values, request.size) for values in choices], dtype="float64")


_HERE = Definition(file=Path(__file__).resolve(), namespace=globals())

persistence = Model(
    name="persistence",
    config=PersistenceConfig,
    runner=_runner(_learn_changes, _sample_persistence),
    target=TARGET,
    definition=_HERE,
    metadata={
        "display_name": "Persistence",
        "description": "The last known value, plus past changes from period to period, drawn anew for each step and "
        "as often down as up (the baseline of Cramer et al. 2022, PNAS 119, e2113561119).",
    },
)
seasonal_naive = Model(
    name="seasonal_naive",
    config=SeasonalNaiveConfig,
    runner=_runner(_learn_yearly_changes, _sample_seasonal_naive),
    target=TARGET,
    definition=_HERE,
    metadata={
        "display_name": "Seasonal naive",
        "description": "The last known value of the same season, plus past changes from year to year, as often down "
        "as up (Hyndman and Athanasopoulos, Forecasting: principles and practice, 5.2).",
    },
)
climatology = Model(
    name="climatology",
    config=ClimatologyConfig,
    runner=_runner(_learn_seasons, _sample_climatology),
    target=TARGET,
    definition=_HERE,
    metadata={
        "display_name": "Climatology",
        "description": "The values that the place has had in the same season of all past years, drawn at random.",
    },
)
