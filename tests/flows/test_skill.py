"""What a backtest tells beside its own scores: skill against the baselines, and pictures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from command_line import MODELS, CommandLine, write_tables

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.flows.evaluations import describe_backtest
from chapkit_flows.flows.pictures import read_shown
from chapkit_flows.lineage.query import get_run

pytestmark = pytest.mark.usefixtures("server", "home")
ROLES = {"plot_forecasts", "plot_scores"}


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    model = load_model(f"{MODELS.with_name('tried.py')}:tried")
    assert isinstance(model, Model)
    return model


def test_skill_and_pictures(tried: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The skill is one minus the ratio of the scores; pictures are artifacts; both can be left out, and compared."""
    data = str(write_tables(tmp_path / "tables", periods=36)["training"])
    told = tried.backtest(tried.config(), data, plan={"periods": 2, "splits": 3})
    resources = open_resources()
    run = get_run(resources.database, told.run_id)
    scores = load(resources.store, run.output("scores"))
    baselines = load(resources.store, run.output("baseline_scores"))
    assert {"persistence", "seasonal_naive", "climatology"} == set(baselines["model"])
    for name, rows in baselines.groupby("model"):
        expected = 1 - scores["crps"].mean() / rows["crps"].mean()
        assert expected == pytest.approx(run.metrics[f"skill_{name}"])
    assert {edge.role for edge in run.outputs if edge.artifact.kind == "plot"} == ROLES
    shown = describe_backtest(run, read_shown(resources.store, run))
    assert 2 == shown.count("](data:image/png;base64,")
    assert "### Skill against the baselines" in shown
    made = run.output("scores").id
    assert f"chapkit-flows artifacts download {made}\nchapkit-flows report {run.id} --out tried.html" in shown
    assert f"- **Scores** `scores` · `{run.output('scores').digest.removeprefix('sha256:')[:12]}`" in shown
    assert "  - together with **Scores of the baselines** `scores of baselines`" in shown

    plain = tried.backtest(tried.config(), data, plan={"periods": 2, "splits": 3, "baselines": (), "pictures": False})
    bare = get_run(resources.database, plain.run_id)
    assert ["forecasts", "scores"] == [edge.role for edge in bare.outputs]

    with pytest.MonkeyPatch.context() as environment:
        cli = CommandLine(capsys, environment)
        again = cli("compare", told.run_id, told.artifact_id)
        assert (0, True) == (again.code, "are the same" in again.out)
        other = cli("compare", told.run_id, plain.run_id, "--json")
        assert 1 == other.code
        assert {"parameters", "scores"} == {row["section"] for row in other.json["rows"]} - {"run", "effort"}
        assert 0.0 == other.json["scores"]["rows"][0]["difference"]
        reason = cli("why", told.run_id, plain.run_id)
        assert (0, True) == (reason.code, "The results are the same bytes." in reason.out)
        table = tmp_path / "scores.csv"
        assert f"Wrote {table}\n" == cli("artifacts", "download", made, "--out", table).out
        pd.testing.assert_series_equal(scores["crps"], pd.read_csv(table)["crps"])
        page = tmp_path / "page.html"
        assert f"Wrote {page}\n" == cli("report", told.run_id, "--out", page).out
        assert 2 == page.read_text().count('src="data:image/png')
        refused = cli("report", told.run_id, "--out", page)
        assert (2, True) == (refused.code, "exists already" in refused.err)
