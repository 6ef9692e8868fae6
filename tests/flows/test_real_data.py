"""Train and predict on real dengue data, and follow a forecast back to its file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.query import get_artifact

EXAMPLE = Path(__file__).parents[2] / "examples/dengue_forecast/model.py"
HORIZON = 3


def _split(source: Path, folder: Path) -> tuple[Path, Path, Path]:
    """Write all but the last three periods of each place as training data, and those without target as future."""
    table = pd.read_csv(source, dtype={"location": str, "time_period": str}, keep_default_na=False, na_values=[""])
    ahead = table.sort_values("time_period").groupby("location").tail(HORIZON)
    files = folder / "training.csv", folder / "historic.csv", folder / "future.csv"
    table.drop(ahead.index).to_csv(files[0], index=False)
    table.drop(ahead.index).to_csv(files[1], index=False)
    ahead.drop(columns="disease_cases").to_csv(files[2], index=False)
    return files


@pytest.fixture
def dengue() -> Model:
    model = load_model(EXAMPLE)
    assert isinstance(model, Model)
    return model


@pytest.mark.parametrize(
    ("source", "geo", "places", "period_type"),
    [
        ("laos_subset/laos_subset.csv", "laos_subset/laos_subset.geojson", 3, "monthly"),
        ("vnm_dengue_monthly/vietnam_monthly.csv", "vnm_dengue_monthly/vietnam_monthly.geojson", 57, "monthly"),
        ("nicaragua_weekly/nicaragua_weekly_data.csv", None, 10, "weekly"),
    ],
)
def test_forecasts_last_periods_of_real_data(
    server: str,
    home: Path,
    shared: Path,
    tmp_path: Path,
    dengue: Model,
    source: str,
    geo: str | None,
    places: int,
    period_type: str,
) -> None:
    """A forecast covers each place and held-out period, and its lineage ends at the training file's digest."""
    training, historic, future = _split(shared / source, tmp_path)
    polygons = str(shared / geo) if geo else None

    trained = dengue.train(dengue.config(n_samples=50), str(training), polygons)
    predicted = dengue.predict(trained.artifact_id, str(historic), str(future), polygons)

    resources = open_resources()
    frame = load(resources.store, get_artifact(resources.database, predicted.artifact_id))
    assert (places * HORIZON, 52) == frame.shape
    assert places == frame["location"].nunique()
    assert {HORIZON} == set(frame.groupby("location")["time_period"].nunique())
    assert np.isfinite(frame.filter(like="sample_").to_numpy()).all()
    model = get_artifact(resources.database, trained.artifact_id)
    assert period_type == model.metadata["trained_on"]["period_type"]
    graph = lineage(resources.database, predicted.artifact_id, up=True, down=False)
    assert f"sha256:{hashlib.sha256(training.read_bytes()).hexdigest()}" in {node.digest for node in graph.nodes}


def test_forecast_is_better_than_no_model(server: str, home: Path, shared: Path, tmp_path: Path, dengue: Model) -> None:
    """On Vietnam the median forecast beats the mean of each place's history."""
    source = shared / "vnm_dengue_monthly/vietnam_monthly.csv"
    training, historic, future = _split(source, tmp_path)
    trained = dengue.train(dengue.config(), str(training))
    predicted = dengue.predict(trained.artifact_id, str(historic), str(future))
    resources = open_resources()
    frame = load(resources.store, get_artifact(resources.database, predicted.artifact_id))
    observed = pd.read_csv(source).set_index(["location", "time_period"])["disease_cases"]
    keys = pd.MultiIndex.from_frame(frame[["location", "time_period"]])
    truth = observed.reindex(keys).to_numpy()
    median = frame.filter(like="sample_").median(axis=1).to_numpy()
    means = pd.read_csv(training).groupby("location")["disease_cases"].mean()
    naive = means.reindex(keys.get_level_values(0)).to_numpy()
    known = np.isfinite(truth)
    assert np.abs(median - truth)[known].mean() < np.abs(naive - truth)[known].mean()
