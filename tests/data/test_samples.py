"""Sample data: reproducible, and like real surveillance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chapkit_flows.data.geo import check_geo, read_geo
from chapkit_flows.data.panels import check_panel, horizon
from chapkit_flows.data.periods import PeriodType
from chapkit_flows.data.samples import SampleSpec, make_sample, write_sample
from chapkit_flows.data.tables import read_table

COVARIATES = ("rainfall", "mean_temperature", "relative_humidity", "population", "ndvi")


def spec(period_type: PeriodType = "monthly", *, places: int = 7, seed: int = 0, horizon: int = 3) -> SampleSpec:
    periods = 72 if period_type == "monthly" else 313
    return SampleSpec(
        period_type=period_type, covariates=COVARIATES, places=places, periods=periods, seed=seed, horizon=horizon
    )


@pytest.mark.parametrize("period_type", ["yearly", "monthly", "weekly", "daily"])
def test_samples_pass_the_check(period_type: PeriodType, tmp_path: Path) -> None:
    """Tables and polygons are written, and read back without a finding; the future follows the history."""
    paths = write_sample(make_sample(spec(period_type)), tmp_path / "new" / "folder")
    panels = {}
    for role, target in (("training", "disease_cases"), ("historic", "disease_cases"), ("future", None)):
        with paths[role].open("rb") as file:
            frame = read_table(file, media_type="text/csv", numeric=COVARIATES)
        panels[role], findings = check_panel(frame, role="data", required=COVARIATES, target=target)
        assert () == findings
    training, future = panels["training"], panels["future"]
    assert training is not None
    assert future is not None
    assert (period_type, 7, 3) == (future.period_type, len(future.locations), horizon(future))
    assert "disease_cases" not in future.frame
    joined = pd.concat([training.frame, future.frame])
    assert () == check_panel(joined, role="data", required=COVARIATES, target="disease_cases")[1]
    assert () == check_geo(read_geo(paths["geo"].read_bytes(), name="geo"), training.locations)


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    """The files of one seed are always the same, those of another are others."""
    content = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        paths = write_sample(make_sample(spec(seed=seed)), tmp_path / name)
        content[name] = [path.read_bytes() for path in paths.values()]
    assert content["a"] == content["b"]
    assert all(first != second for first, second in zip(content["a"], content["c"], strict=True))


def test_another_covariate_changes_no_other_column() -> None:
    """Each column has a stream of random numbers of its own."""
    few = make_sample(SampleSpec(covariates=("rainfall",))).training
    many = make_sample(SampleSpec(covariates=COVARIATES)).training
    pd.testing.assert_frame_equal(few, many[few.columns])


def test_values_are_plausible() -> None:
    """Covariates lie in the ranges of the tropics; cases are counts."""
    frame = make_sample(spec(places=40)).training
    assert frame["rainfall"].between(0, 2000).all()
    assert frame["mean_temperature"].between(15, 38).all()
    assert frame["relative_humidity"].between(15, 100).all()
    assert frame["population"].between(5_000, 2_000_000).all()
    assert {"int64"} == {str(frame[name].dtype) for name in ("disease_cases", "population")}
    assert (frame["disease_cases"] >= 0).all()
    assert 0 < frame["disease_cases"].sum() < 0.05 * frame["population"].sum()


@pytest.mark.parametrize(("period_type", "lag"), [("monthly", 1), ("weekly", 4)])
def test_cases_follow_the_rain(period_type: PeriodType, lag: int) -> None:
    """Cases are seasonal, and follow the rain of a month before more closely than that of the same time."""
    frame = make_sample(spec(period_type, places=30)).training
    rain = frame.pivot(index="time_period", columns="location", values="rainfall").mean(axis=1)
    cases = np.log1p(frame.pivot(index="time_period", columns="location", values="disease_cases").mean(axis=1))
    delayed = cases.corr(rain.shift(lag))
    assert delayed > 0.8
    assert delayed > cases.corr(rain) + 0.05


def test_counts_vary_more_than_poisson() -> None:
    """Within a place and a season the variance of the cases exceeds their mean."""
    frame = make_sample(spec(places=30)).training
    groups = frame.groupby(["location", frame["time_period"].str[5:]])["disease_cases"]
    assert (groups.var() / groups.mean()).median() > 2


def test_cells_adjoin_and_do_not_repeat() -> None:
    """Neighbouring places share two corners, and every place has its own polygon."""
    geo = make_sample(spec(places=7)).geo
    assert geo is not None
    rings = [set(feature.geometry.coordinates[0]) for feature in geo.features]
    assert {4} == {len(ring) for ring in rings}
    assert 2 == len(rings[0] & rings[1]) == len(rings[0] & rings[3])
    assert 7 == len({frozenset(ring) for ring in rings})


def test_polygons_are_left_out_when_not_wanted(tmp_path: Path) -> None:
    """Without geo there are three files."""
    paths = write_sample(make_sample(SampleSpec(places=1, periods=2, horizon=1, geo=False)), tmp_path)
    assert {"training", "historic", "future"} == set(paths)
    assert {"training.csv", "historic.csv", "future.csv"} == {path.name for path in tmp_path.iterdir()}
