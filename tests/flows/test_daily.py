"""Days and years go through every flow, as months and weeks do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from command_line import CommandLine, model, read_text_table, write_tables

from chapkit_flows import open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.lineage.query import get_artifact

pytestmark = pytest.mark.usefixtures("server", "home")


def test_days_as_dhis2_writes_them(tmp_path: Path, cli: CommandLine) -> None:
    """Daily data are validated, trained on, predicted from and backtested; days come back in their canonical form."""
    files = write_tables(tmp_path, period_type="daily", periods=400)
    for role in ("training", "historic", "future"):
        table = read_text_table(files[role])
        table["time_period"] = table["time_period"].str.replace("-", "")
        table.to_csv(files[role], index=False)
    asked = [model("mean"), "--data", files["training"]]
    assert 0 == cli("validate", *asked).code
    trained = cli("train", *asked, "--json").json["artifact_id"]
    future = ["--historic", files["historic"], "--future", files["future"]]
    predicted = cli("predict", trained, *future, "--json").json["artifact_id"]
    resources = open_resources()
    forecast = load(resources.store, get_artifact(resources.database, predicted))
    assert ["2016-02-05", "2016-02-06", "2016-02-07"] == sorted(forecast["time_period"].unique())
    told = cli("backtest", *asked, "--periods", 6, "--splits", 2, "--stride", 7, "--no-pictures", "--json").json
    assert {"done": 2, "reused": 0, "failed": 0} == told["folds"]
    assert {"skill_persistence", "skill_seasonal_naive", "skill_climatology"} <= set(told["metrics"])
    scores = load(resources.store, get_artifact(resources.database, told["artifact_id"]))
    assert ["2016-01-22", "2016-01-29"] == sorted(scores["origin"].unique())
    assert {*range(1, 7)} == set(scores["horizon"])


def test_vintages_of_days(tmp_path: Path, cli: CommandLine) -> None:
    """A daily table with a day of issue, as Delphi Epidata has it, is backtested on its vintages."""
    table = pd.read_csv(write_tables(tmp_path, period_type="daily", periods=60)["training"])
    days = pd.to_datetime(table["time_period"])
    early, late = (table.assign(issue=(days + pd.Timedelta(days=lag)).dt.strftime("%Y%m%d")) for lag in (1, 5))
    early["disease_cases"] //= 2
    data = tmp_path / "vintages.csv"
    pd.concat([early, late]).to_csv(data, index=False)
    asked = [model("mean"), "--data", data, "--periods", 3, "--splits", 2, "--no-pictures", "--no-baselines"]
    told = cli("backtest", *asked, "--vintages", "--delay", 1, "--json").json["vintages"]
    assert [("2015-02-25", "2015-02-26"), ("2015-02-26", "2015-02-27")] == [
        (row["origin"], row["known_by"]) for row in told["known"]
    ]
    assert all(row["reported"] == 2 and row["completeness"] <= 0.5 for row in told["known"])
