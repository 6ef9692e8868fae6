"""The baselines are what their names say, for months and weeks, and are found by name."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chapkit_flows import baselines, load_model, open_resources
from chapkit_flows.artifacts.codecs import load, save
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.baselines import climatology, persistence, seasonal_naive
from chapkit_flows.data.periods import period_from_ordinal, period_ordinal, period_type_of
from chapkit_flows.errors import DataError
from chapkit_flows.flows.model import Model
from chapkit_flows.lineage.query import get_artifact, get_run

ALL = [persistence, seasonal_naive, climatology]
ROOT = Path(__file__).parents[1]


def _table(first: str, values: list[float | None], place: str = "A") -> pd.DataFrame:
    start, kind = period_ordinal(first), period_type_of(first)
    periods = [period_from_ordinal(start + step, kind) for step in range(len(values))]
    frame = pd.DataFrame({"time_period": periods, "location": place, "disease_cases": values})
    return frame.astype({"disease_cases": "float64"})


def _forecast(
    model: Model, data: pd.DataFrame, future: pd.DataFrame, historic: pd.DataFrame | None = None, **values: int
) -> pd.DataFrame:
    config = model.config(**values)
    trained = model.runner.on_train(config, data)
    predicted = model.runner.on_predict(config, trained, data if historic is None else historic, future)
    assert isinstance(predicted, pd.DataFrame)
    return predicted


def _samples(predictions: pd.DataFrame) -> np.ndarray:
    return predictions.filter(like="sample_").to_numpy()


# Three years of months: 0 to 35.
MONTHS = _table("2017-01", [float(value) for value in range(36)])
AHEAD = _table("2020-01", [None] * 3).drop(columns="disease_cases")


def test_persistence_continues_the_last_value() -> None:
    """The median is the last value, and the spread grows with the horizon as that of a random walk."""
    samples = _samples(_forecast(persistence, MONTHS, AHEAD, n_samples=4000))
    assert [35.0] * 3 == pytest.approx(np.median(samples, axis=1), abs=1)
    # Every change is 1, up or down: after h steps the variance is h.
    assert [1.0, 2.0, 3.0] == pytest.approx(samples.var(axis=1), rel=0.1)
    assert {34.0, 36.0} == set(samples[0])


def test_persistence_starts_from_the_last_known_value() -> None:
    """Periods without a value before the forecast widen it; changes over a gap are not changes from one period."""
    data = _table("2017-01", [1, 2, 3, None, 50, 51, None, None])
    samples = _samples(_forecast(persistence, data, AHEAD.assign(time_period=["2017-09", "2017-10", "2017-11"])))
    assert {48.0, 50.0, 52.0, 54.0} == set(samples[0])


def test_seasonal_naive_repeats_the_last_year() -> None:
    """The forecast of January is last January, plus or minus a change from year to year."""
    samples = _samples(_forecast(seasonal_naive, MONTHS, AHEAD))
    assert [{12.0, 36.0}, {13.0, 37.0}, {14.0, 38.0}] == [set(row) for row in samples]


def test_climatology_draws_from_the_same_season() -> None:
    """The forecast of January is one of the Januaries."""
    samples = _samples(_forecast(climatology, MONTHS, AHEAD))
    assert [{0.0, 12.0, 24.0}, {1.0, 13.0, 25.0}, {2.0, 14.0, 26.0}] == [set(row) for row in samples]


def test_weeks_have_seasons_too() -> None:
    """The 53rd week takes its season from the 52nd."""
    data = _table("2018-W01", [float(value % 52) for value in range(104)])
    future = _table("2020-W52", [None] * 2).drop(columns="disease_cases")
    assert ["2020-W52", "2020-W53"] == future["time_period"].tolist()
    assert {51.0} == set(_samples(_forecast(climatology, data, future)).ravel())
    assert {51.0} == set(_samples(_forecast(seasonal_naive, data, future)).ravel())


def test_days_have_the_season_of_their_week() -> None:
    """Climatology draws from the same seven days of all years, seasonal naive from the same day a year before."""
    data = _table("2018-01-01", [float(value) for value in range(730)])
    future = _table("2020-02-29", [None] * 2).drop(columns="disease_cases")
    drawn = _samples(_forecast(climatology, data, future, n_samples=2000))
    of_week = {float(day) for start in (0, 365) for day in range(start + 56, start + 63)}
    assert [of_week, of_week] == [set(row) for row in drawn]
    # 28 February and 1 March of 2019, a year of growth up or down.
    naive = _samples(_forecast(seasonal_naive, data, future))
    assert [{58.0, 788.0}, {59.0, 789.0}] == [set(row) for row in naive]


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_counts_stay_counts(model: Model) -> None:
    """No sample is negative where no value was, nor a fraction; of other data they may be both."""
    random = np.random.default_rng(0)
    counts = _table("2010-01", [float(value) for value in random.poisson(2, 120)])
    samples = _samples(_forecast(model, counts, AHEAD))
    assert (samples >= 0).all() and (samples == np.round(samples)).all()
    levels = counts.assign(disease_cases=random.normal(0, 1, 120))
    samples = _samples(_forecast(model, levels, AHEAD))
    assert (samples < 0).any() and (samples != np.round(samples)).any()


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_forecasts_of_a_place_are_its_own(model: Model) -> None:
    """Equal seeds give equal forecasts of a place, whichever other places are asked for; other seeds others."""
    data = pd.concat([MONTHS, MONTHS.assign(location="B", disease_cases=MONTHS["disease_cases"] * 3)])
    both = pd.concat([AHEAD.assign(location="B"), AHEAD])
    alone = _forecast(model, data, AHEAD)
    together = _forecast(model, data, both)
    pd.testing.assert_frame_equal(alone, together[together["location"] == "A"].reset_index(drop=True))
    assert not alone.equals(_forecast(model, data, AHEAD, seed=1))
    assert (3, 202) == alone.shape
    assert (3, 7) == _forecast(model, data, AHEAD, n_samples=5).shape


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_place_without_past(model: Model) -> None:
    """A place that is new gets values of the other places."""
    samples = _samples(_forecast(model, MONTHS, AHEAD.assign(location="new")))
    assert set(samples.ravel()) <= set(range(36)) and len(set(samples.ravel())) > 10


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_no_values_at_all(model: Model) -> None:
    """Data without a value to continue is refused with the column's name."""
    with pytest.raises(DataError, match="no value of 'disease_cases'"):
        _forecast(model, MONTHS, AHEAD, historic=MONTHS.assign(disease_cases=np.nan))


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_trained_baselines_need_no_pickle(model: Model, tmp_path: Path) -> None:
    """What a baseline learns is kept as a table, also where there is nothing to learn from one period."""
    store = open_store(f"file://{tmp_path}/store")
    for data in (MONTHS, MONTHS.head(1)):
        assert "parquet" == save(store, model.runner.on_train(model.config(), data)).codec


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_one_period_is_enough(model: Model) -> None:
    """From one value all samples are that value."""
    assert {0.0} == set(_samples(_forecast(model, MONTHS.head(1), AHEAD)).ravel())


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_found_by_module_and_by_name(model: Model) -> None:
    """A baseline is found by its module and, as the project declares it, by its bare name."""
    assert f"chapkit_flows.baselines:{model.name}" == model.entrypoint
    assert model is load_model(f"chapkit_flows.baselines:{model.name}")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    value = declared["chapkit_flows.models"][model.name]
    assert model is EntryPoint(name=model.name, value=value, group="chapkit_flows.models").load()


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_flows_can_be_deployed_by_entry_point(model: Model) -> None:
    """Prefect finds the flows of a baseline by module and qualified name."""
    assert ("chapkit_flows.baselines", f"{model.name}.train") == (
        model.train.fn.__module__,
        model.train.fn.__qualname__,
    )
    assert not inspect.iscoroutinefunction(model.runner.on_train)


def test_each_has_a_block_type_of_its_own() -> None:
    """The run forms of the three offer the saved configs of each."""
    assert 3 == len({model.config.get_block_type_slug() for model in ALL})
    assert {model.name for model in ALL} == {each.name for each in vars(baselines).values() if isinstance(each, Model)}


def test_trains_and_predicts_as_flows(server: str, home: Path, tmp_path: Path) -> None:
    """A baseline runs through its flows as any model does, and its run names the module that defines it."""
    MONTHS.to_csv(tmp_path / "data.csv", index=False)
    AHEAD.to_csv(tmp_path / "future.csv", index=False)
    trained = climatology.train(climatology.config(), str(tmp_path / "data.csv"))
    predicted = climatology.predict(trained.artifact_id, str(tmp_path / "data.csv"), str(tmp_path / "future.csv"))
    resources = open_resources()
    frame = load(resources.store, get_artifact(resources.database, predicted.artifact_id), allow_pickle=False)
    pd.testing.assert_frame_equal(_forecast(climatology, MONTHS, AHEAD), frame)
    assert "chapkit_flows.baselines:climatology" == get_run(resources.database, predicted.run_id).entrypoint
