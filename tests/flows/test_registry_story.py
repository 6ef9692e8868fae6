"""What docs/registry.md tells, on real data: backtest, compare, promote, predict with the champion, and look back."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pandas as pd
import pytest
from command_line import CommandLine

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.evaluation.comparison import compare
from chapkit_flows.evaluation.gates import read_gate
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.query import get_run
from chapkit_flows.promotion import read_scores

ROOT = Path(__file__).parents[2]
BASELINES = ("persistence", "seasonal_naive", "climatology")
HORIZON = 3


def test_example_gate_can_be_read() -> None:
    """The gate in the page is one."""
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/registry.md").read_text(), re.DOTALL)
    assert ["crps", "coverage_90", "crps"] == [rule.metric for rule in read_gate(text).rules]


def test_the_better_model_of_vietnam_is_promoted(
    server: str, home: Path, shared: Path, tmp_path: Path, cli: CommandLine
) -> None:
    """Of the example and three baselines the one with the least error is champion; its lineage ends at the CSV."""
    source = shared / "vnm_dengue_monthly/vietnam_monthly.csv"
    table = pd.read_csv(source, dtype={"location": str, "time_period": str}, keep_default_na=False, na_values=[""])
    last = sorted(table["time_period"].unique())[-HORIZON:]
    historic, future = tmp_path / "historic.csv", tmp_path / "future.csv"
    table[~table["time_period"].isin(last)].to_csv(historic, index=False)
    table[table["time_period"].isin(last)].drop(columns="disease_cases").to_csv(future, index=False)
    models: dict[str, Model] = {"dengue": load_model(ROOT / "examples/dengue_forecast/model.py")}  # type: ignore[dict-item]
    models |= {name: load_model(f"chapkit_flows.baselines:{name}") for name in BASELINES}  # type: ignore[misc]
    resources, scores = open_resources(), {}
    for name, model in models.items():
        plan = {"periods": HORIZON, "splits": 4}
        result = model.backtest(model.config(n_samples=30), str(historic), plan=plan)
        assert {"done": 4, "reused": 0, "failed": 0} == result.folds
        scores[name] = read_scores(resources, get_run(resources.database, result.run_id))
    compared = compare(scores, "crps", reference="persistence")
    assert all(row.n_pairs > 500 for row in compared.rows)
    top = compared.rows[0]
    best = top.model if top.skill is not None and top.skill > 0 else "persistence"
    trained = models[best].train(models[best].config(n_samples=30), str(historic))

    gate = tmp_path / "gate.yaml"
    gate.write_text("- better: {metric: crps, by: 0.01}\n- within: {metric: coverage_90, low: 0.3}\n")
    version = cli("models", "register", trained.artifact_id, "--json").json
    told = cli("models", "promote", trained.artifact_id, "--gate", gate, "--reason", "least error", "--json")
    assert 0 == told.code
    value = told.json["evidence"]["evidence"][1]["value"]
    assert pytest.approx(scores[best]["coverage_90"].mean()) == value
    reference = f"{version['model']}@champion"
    predicted = models[best].predict(reference, str(historic), str(future))
    assert reference == get_run(resources.database, predicted.run_id).parameters["model"]
    digests = {node.digest for node in lineage(resources.database, trained.artifact_id, up=True, down=False).nodes}
    assert f"sha256:{hashlib.sha256(historic.read_bytes()).hexdigest()}" in digests
    scored = models[best].score(str(source), predicted.artifact_id)
    assert 0 < scored.metrics["crps"] < 1e5
