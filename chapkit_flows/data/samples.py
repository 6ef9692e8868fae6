"""Sample data: seeded, with the seasons, delays and noise of real surveillance of a climate-sensitive disease."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from geojson_pydantic import Feature, FeatureCollection, Polygon
from numpy.typing import NDArray

from chapkit_flows.data.periods import PeriodType, period_from_ordinal, period_ordinal
from chapkit_flows.data.tables import write_csv

_FIRST_PERIOD = {"yearly": "2000", "monthly": "2015-01", "weekly": "2015-W01", "daily": "2015-01-01"}
_PER_YEAR = {"yearly": 1.0, "monthly": 12.0, "weekly": 365.2425 / 7, "daily": 365.2425}
_LAG_YEARS = 0.15  # cases follow the rain and warmth of two months before, and so peak a month after the rain
_CELL_DEGREES = 0.5
_CORNER = (102.0, 15.0)  # longitude and latitude of the south-western place

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSpec:
    """What sample data to make.

    Attributes:
        covariates: Names of columns. `rainfall` (mm), `mean_temperature` (°C), `relative_humidity` (%) and
            `population` get realistic ranges, others a smooth seasonal series.
        periods: Per place, in the training data.
        horizon: Periods per place to forecast.
        geo: Whether to make polygons.
    """

    period_type: PeriodType = "monthly"
    covariates: tuple[str, ...] = ("rainfall", "mean_temperature", "population")
    target: str = "disease_cases"
    places: int = 10
    periods: int = 60
    horizon: int = 3
    seed: int = 0
    geo: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Tables to train and predict with; `future` has no target, `geo` is None if the spec wants none."""

    training: pd.DataFrame
    historic: pd.DataFrame
    future: pd.DataFrame
    geo: FeatureCollection[Any] | None


def make_sample(spec: SampleSpec) -> Sample:
    """Make sample data; equal specs give equal data."""
    climate = _Climate.draw(spec)
    columns = {name: climate.column(name) for name in spec.covariates if name != spec.target}
    locations = [f"OU_{place + 1:03d}" for place in range(spec.places)]
    first = period_ordinal(_FIRST_PERIOD[spec.period_type])
    total = spec.periods + spec.horizon
    periods = [period_from_ordinal(first + step, spec.period_type) for step in range(total)]
    frame = pd.DataFrame(
        {
            "time_period": pd.array(periods * spec.places, dtype="str"),
            "location": pd.array(np.repeat(locations, total), dtype="str"),
            spec.target: climate.cases().ravel(),
            **{name: values.ravel() for name, values in columns.items()},
        }
    )
    known = np.tile(np.arange(total) < spec.periods, spec.places)
    training = frame[known].reset_index(drop=True)
    return Sample(
        training=training,
        historic=training.copy(),
        future=frame[~known].drop(columns=spec.target).reset_index(drop=True),
        geo=_polygons(locations, _generator(spec, "geo")) if spec.geo else None,
    )


def write_sample(sample: Sample, folder: Path) -> dict[str, Path]:
    """Write `training.csv`, `historic.csv`, `future.csv` and, if there are polygons, `geo.json`.

    Returns:
        The paths by `training`, `historic`, `future` and `geo`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"training": sample.training, "historic": sample.historic, "future": sample.future}
    paths = {name: folder / f"{name}.csv" for name in tables}
    for name, frame in tables.items():
        write_csv(frame, paths[name])
    if sample.geo is not None:
        paths["geo"] = folder / "geo.json"
        paths["geo"].write_text(sample.geo.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")
    return paths


@dataclass(frozen=True, slots=True, kw_only=True)
class _Climate:
    """The seasons of each place. Matrices are places x periods, vectors have one value per place as a column."""

    spec: SampleSpec
    years: Matrix
    phase: Matrix
    wetness: Matrix
    residents: Matrix

    @classmethod
    def draw(cls, spec: SampleSpec) -> _Climate:
        rng = _generator(spec, "places")
        total = spec.periods + spec.horizon
        return cls(
            spec=spec,
            years=np.arange(total)[None, :] / _PER_YEAR[spec.period_type],
            phase=rng.normal(0.0, 0.04, size=(spec.places, 1)),
            wetness=rng.lognormal(0.0, 0.25, size=(spec.places, 1)),
            residents=np.round(rng.lognormal(11.5, 0.6, size=(spec.places, 1))),
        )

    def column(self, name: str) -> NDArray[Any]:
        """The values of a covariate, rounded as instruments report them."""
        rng = _generator(self.spec, f"column {name}")
        shape = (self.spec.places, self.years.shape[1])
        if name == "population":
            return np.round(self.residents * 1.015**self.years).astype(np.int64)
        if name == "rainfall":
            mean = 200.0 * 12.0 / _PER_YEAR[self.spec.period_type] * self.wetness * self._wet()
            return np.round(rng.gamma(2.5, mean / 2.5, size=shape), 1)
        if name == "mean_temperature":
            return np.round(26.0 + 4.0 * self._warm() + rng.normal(0.0, 0.7, size=shape), 2)
        if name == "relative_humidity":
            return np.round(np.clip(58.0 + 30.0 * self._wet() + rng.normal(0.0, 4.0, size=shape), 15.0, 100.0), 1)
        level, start = rng.normal(50.0, 10.0, size=(self.spec.places, 1)), rng.uniform()
        return np.round(level + 10.0 * np.sin(2 * np.pi * (self.years - start)) + rng.normal(0.0, 1.0, size=shape), 2)

    def cases(self) -> NDArray[np.int64]:
        """Overdispersed counts: seasonal by delayed rain and warmth, with outbreak years and a slow trend."""
        rng = _generator(self.spec, "cases")
        delayed = self.years - _LAG_YEARS
        yearly = rng.normal(0.0, 0.35, size=(1, int(self.years.max(initial=0.0)) + 2))
        outbreak = yearly[:, self.years[0].astype(int)]
        level = rng.normal(-9.2, 0.4, size=(self.spec.places, 1)) + np.log(12.0 / _PER_YEAR[self.spec.period_type])
        log_rate = level + 1.8 * self._wet(delayed) + 0.5 * self._warm(delayed) + outbreak + 0.04 * self.years
        mean = self.residents * np.exp(log_rate)
        size = 4.0  # the smaller, the more the counts vary beyond Poisson
        return np.asarray(rng.negative_binomial(size, size / (size + mean)), dtype=np.int64)

    def _wet(self, years: Matrix | None = None) -> Matrix:
        """How far into the rains a period is, from 0.05 to 1; they peak in August."""
        season = 0.5 + 0.5 * np.cos(2 * np.pi * ((self.years if years is None else years) - 0.62 - self.phase))
        return 0.05 + 0.95 * season**1.5

    def _warm(self, years: Matrix | None = None) -> Matrix:
        """The warmth of the season, from -1 to 1; it peaks in May."""
        season: Matrix = np.cos(2 * np.pi * ((self.years if years is None else years) - 0.38 - self.phase))
        return season


def _generator(spec: SampleSpec, part: str) -> np.random.Generator:
    # A stream for each part: another covariate more does not change the others.
    return np.random.default_rng([spec.seed, zlib.crc32(part.encode())])


def _polygons(locations: list[str], rng: np.random.Generator) -> FeatureCollection[Any]:
    """Adjoining cells of a grid with shifted corners, filled row by row from the south-west."""
    width = int(np.ceil(np.sqrt(len(locations))))
    grid = np.stack(np.meshgrid(np.arange(width + 1), np.arange(width + 1)), axis=-1)
    shifted = (grid + rng.uniform(-0.2, 0.2, size=grid.shape)) * _CELL_DEGREES
    corners = np.round(np.array(_CORNER) + shifted, 4)
    features: list[Any] = []
    for place, location in enumerate(locations):
        row, column = divmod(place, width)
        ring = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column), (row, column)]
        coordinates = [[tuple(float(degree) for degree in corners[corner]) for corner in ring]]
        features.append(
            Feature(
                type="Feature",
                id=location,
                geometry=Polygon.model_validate({"type": "Polygon", "coordinates": coordinates}),
                properties={"name": f"District {place + 1}"},
            )
        )
    return FeatureCollection(type="FeatureCollection", features=features)
