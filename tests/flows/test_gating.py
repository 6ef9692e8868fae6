"""Retraining through a gate: the new model takes the champion's place, or does not, and a report says why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import write_tables
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.errors import ChapkitFlowsError, UnknownMetric
from chapkit_flows.lineage.query import get_run, list_runs
from chapkit_flows.lineage.registry import assignments, find_version, scan_versions

pytestmark = pytest.mark.usefixtures("server", "home")
TRIED = Path(__file__).parent / "models/tried.py"
PLAN = {"periods": 2, "splits": 3}
GATE = {"rules": [{"no_place_worse": {"metric": "crps", "by": 0.01}}], "plan": PLAN}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    return write_tables(tmp_path / "tables")["training"]


@pytest.fixture
def tried() -> Model:
    model = load_model(f"{TRIED}:tried")
    assert isinstance(model, Model)
    return model


def shown(flow_run_id: str | None) -> str:
    """The markdown that a run shows in Prefect."""

    async def read() -> list[Any]:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[str(flow_run_id)]))
        async with get_client() as client:
            return await client.read_artifacts(artifact_filter=of_run)

    (found,) = asyncio.run(read())
    return str(found.data)


def test_promotes_or_keeps(tried: Model, data: Path) -> None:
    """The first model is promoted, a worse config is kept out and reported, a better one takes over with evidence."""
    first = tried.retrain(tried.config(shift=500), str(data), gate=GATE)
    assert first.promoted is True
    worse = tried.retrain(tried.config(shift=9000), str(data), gate=GATE)
    assert (True, False) == (worse.is_new, worse.promoted)
    database = open_resources().database
    assert first.artifact_id == find_version(database, "tried", "champion").artifact_id
    report = shown(worse.flow_run_id)
    assert "tried@2 does not pass the gate: tried@1 stays champion." in report
    assert "**fails**" in report
    assert f"chapkit-flows predict {worse.artifact_id}" in report
    assert f"- **Trained model** `{worse.artifact_id}`" in report
    better = tried.retrain(tried.config(), str(data), gate=GATE)
    assert better.promoted is True
    last = assignments(database, "tried")[-1]
    assert (3, 1, f"run {better.run_id}") == (last.number, last.previous, last.actor)
    assert last.evidence is not None
    assert (True, "tried@1") == (last.evidence["passed"], last.evidence["champion"]["version"])
    run = get_run(database, better.run_id)
    assert {"model", "scores", "forecasts", "report"} == {edge.role for edge in run.outputs}
    again = tried.retrain(tried.config(), str(data), gate=GATE)
    assert (False, None) == (again.is_new, again.promoted)
    assert 3 == len(scan_versions(database, "tried"))


def test_reports_drift(tried: Model, data: Path) -> None:
    """New data that is unlike that of the model in use is retrained on, and the report says in what it differs."""
    tried.retrain(tried.config(), str(data), gate=GATE)
    table = pd.read_csv(data, dtype={"time_period": str})
    ahead = table.assign(
        time_period=table["time_period"].map(lambda period: f"{int(period[:4]) + 10}{period[4:]}"),
        rainfall=table["rainfall"] * 100 + 5000,
    )
    drifted = data.with_name("drifted.csv")
    years = [
        table.assign(time_period=table["time_period"].map(lambda p, n=n: f"{int(p[:4]) + n}{p[4:]}")) for n in range(10)
    ]
    pd.concat([*years, ahead]).to_csv(drifted, index=False)
    result = tried.retrain(tried.config(), str(drifted), gate=GATE)
    assert result.is_new
    assert "of the recent values of 'rainfall' are outside" in shown(result.flow_run_id)
    evidence = get_run(open_resources().database, result.run_id).output("report").metadata["evidence"]
    assert "drift_range" in {found["code"] for found in evidence["drift"]}


def test_refused_gate(tried: Model, data: Path) -> None:
    """A gate with an unknown metric is refused before anything runs."""
    with pytest.raises(UnknownMetric, match="crsp"):
        tried.retrain(tried.config(), str(data), gate={"rules": [{"better": {"metric": "crsp"}}]})
    assert [] == list_runs(open_resources().database)


def test_failed_backtest_leaves_the_champion(tried: Model, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retraining whose folds fail is a failed run; neither a version nor the alias has come of it."""
    first = tried.retrain(tried.config(), str(data), gate=GATE)
    periods = sorted(pd.read_csv(data, dtype=str)["time_period"].unique())
    monkeypatch.setenv("FAIL_AT", periods[-3])
    plan = {"periods": 2, "splits": 1}
    with pytest.raises(ChapkitFlowsError, match="no rain fell"):
        tried.retrain(tried.config(shift=1), str(data), gate=GATE | {"plan": plan})
    database = open_resources().database
    assert first.artifact_id == find_version(database, "tried", "champion").artifact_id
    assert 1 == len(scan_versions(database, "tried"))
