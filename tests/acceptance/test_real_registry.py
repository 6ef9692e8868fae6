"""The registry on real data, by the command line: which config of the example model is in use, and why.

All places and periods, three periods ahead from four origins; 30 samples instead of 200, to be quick.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import CommandLine

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.query import get_run
from chapkit_flows.lineage.registry import assignments, find_version

MODEL = str(Path(__file__).parents[2] / "examples/dengue_forecast/model.py:dengue")
PLAN = ("--periods", "3", "--splits", "4")
FEW = ("--set", "n_samples=30")
SIMPLE = (*FEW, "--set", "n_lags=1", "--set", "harmonics=1")
BARE = ("--no-baselines", "--no-pictures")
GATE = "- better: {metric: crps, by: 0.01}\n- within: {metric: coverage_90, low: 0.5}\n"

pytestmark = pytest.mark.usefixtures("server", "home")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(capsys, monkeypatch)


def made(cli: CommandLine, *arguments: object, code: int = 0) -> Any:
    """What a command says as JSON."""
    ended = cli(*arguments, "--json")
    assert code == ended.code, ended
    return ended.json


def test_vietnam(shared: Path, tmp_path: Path, cli: CommandLine) -> None:
    """The better config passes the gate, the worse is kept out twice; from the alias to the CSV it can be followed."""
    folder = shared / "vnm_dengue_monthly"
    table = pd.read_csv(folder / "vietnam_monthly.csv", dtype={"time_period": str}, keep_default_na=False)
    last = sorted(table["time_period"].unique())[-3:]
    historic, future, gate = tmp_path / "historic.csv", tmp_path / "future.csv", tmp_path / "gate.yaml"
    table[~table["time_period"].isin(last)].to_csv(historic, index=False)
    table[table["time_period"].isin(last)].drop(columns="disease_cases").to_csv(future, index=False)
    gate.write_text(GATE)
    geo = ("--geo", folder / "vietnam_monthly.geojson")

    tests = [
        made(cli, "backtest", MODEL, "--data", historic, *PLAN, *SIMPLE, *BARE),
        made(cli, "backtest", MODEL, "--data", historic, *PLAN, *FEW, *geo),
    ]
    assert [{"done": 4, "reused": 0, "failed": 0}] * 2 == [one["folds"] for one in tests]
    assert {"skill_persistence", "skill_seasonal_naive", "skill_climatology"} <= set(tests[1]["metrics"])
    compared = made(cli, "compare", *(one["run_id"] for one in tests), code=1)
    (row,) = compared["scores"]["rows"]
    assert row["skill"] > 0.01
    assert row["n_pairs"] > 500

    for options in (SIMPLE, FEW):
        trained = made(cli, "train", MODEL, "--data", historic, *options)
        made(cli, "models", "register", trained["artifact_id"])
    promote = ("models", "promote", "--gate", gate, "--reason", "least error")
    assert 1 == made(cli, *promote, "dengue@1")["number"]
    assert pytest.approx(row["skill"]) == made(cli, *promote, "dengue@2")["evidence"]["evidence"][0]["skill"]
    assert "GateFailed" == made(cli, *promote, "dengue@1", code=1)["error"]["type"]
    dengue = load_model(MODEL)
    assert isinstance(dengue, Model)
    rules = {"rules": [{"better": {"metric": "crps", "by": 0.01}}]}
    plan = {"periods": 3, "splits": 4, "baselines": [], "pictures": False}
    simple = dengue.config(n_samples=30, n_lags=1, harmonics=1)
    kept = dengue.retrain(simple, str(historic), gate=rules | {"plan": plan}, force=True)
    assert kept.promoted is False
    assert [1, 2] == [one.number for one in assignments(open_resources().database, "dengue")]

    predicted = made(cli, "predict", "dengue@champion", "--historic", historic, "--future", future)
    resources = open_resources()
    assert "dengue@champion" == get_run(resources.database, predicted["run_id"]).parameters["model"]
    champion = find_version(resources.database, "dengue", "champion")
    graph = lineage(resources.database, champion.artifact_id, up=True, down=False)
    assert f"sha256:{hashlib.sha256(historic.read_bytes()).hexdigest()}" in {node.digest for node in graph.nodes}
    scored = made(cli, "score", predicted["artifact_id"], "--truth", folder / "vietnam_monthly.csv")
    assert "dengue@2" == scored["standing"]["versions"][0]["version"]
    page = report(cli, tmp_path, tests[1]["run_id"])
    assert 3 == page.count("data:image/png;base64,")  # forecasts, scores, map
    assert "Model card: dengue@2" in report(cli, tmp_path, "dengue@champion")


def test_nicaragua(shared: Path, tmp_path: Path, cli: CommandLine) -> None:
    """Weekly data are backtested, compared and reported in the same way."""
    data = shared / "nicaragua_weekly/nicaragua_weekly_data.csv"
    tests = [
        made(cli, "backtest", MODEL, "--data", data, *PLAN, *FEW),
        made(cli, "backtest", MODEL, "--data", data, *PLAN, *FEW, "--set", "n_lags=6", *BARE),
    ]
    assert [{"done": 4, "reused": 0, "failed": 0}] * 2 == [one["folds"] for one in tests]
    compared = cli("compare", *(one["run_id"] for one in tests))
    assert (1, True) == (compared.code, "n_lags" in compared.out and "on the folds that both have" in compared.out)
    told = cli("why", *(one["run_id"] for one in tests))
    assert (1, True) == (told.code, "~ n_lags: 3 → 6" in told.out)
    page = report(cli, tmp_path, tests[0]["run_id"])
    assert "Skill in CRPS against the baselines" in page
    assert "10 places" in page


def report(cli: CommandLine, folder: Path, thing: str) -> str:
    """The page about something."""
    file = folder / f"{thing.replace('@', '-')}.html"
    assert 0 == cli("report", thing, "--out", file).code
    return file.read_text(encoding="utf-8")
