"""Runs side by side, and why their results differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from finished import run_with

from chapkit_flows.lineage.facts import Edge, RunFact
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.reports.causes import explain
from chapkit_flows.reports.datasets import describe_changes
from chapkit_flows.reports.runs import Subject, compare_subjects
from chapkit_flows.testing.facts import make_artifact, make_code, make_config


def subject(name: str, run: RunFact) -> Subject:
    return Subject(label=name, run=run, config=run.config)


def table_of(values: list[int]) -> pd.DataFrame:
    periods = [f"2020-{number:02d}" for number in range(1, len(values) + 1)]
    return pd.DataFrame({"time_period": periods, "location": "A", "disease_cases": values})


def refuse(artifact: ArtifactRef) -> pd.DataFrame:
    raise AssertionError(f"{artifact.id} was read although its digest is the same")


def test_equal_runs_are_the_same() -> None:
    """Two runs of equal inputs differ in nothing that counts."""
    found = compare_subjects([subject("a", run_with()), subject("b", run_with())])
    assert (True, ()) == (found.is_same, found.differing)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config": make_config(n_lags=3.0)}, [("config", "n_lags", (3, 3.0))]),
        ({"config": make_config(n_lags=3, w={"a": [1]})}, [("config", "w.a[0]", (None, 1))]),
        ({"code": make_code("abc")}, [("code", "commit", ("5f3c2ab", "abc"))]),
        ({"metrics": {"crps": 12.5, "rmse": 4.0}}, [("scores", "rmse", (3.0, 4.0))]),
        (
            {"code": replace(make_code(), packages={"numpy": "2.3.0", "pandas": "3.1.0"})},
            [("packages", "pandas", ("3.0.0", "3.1.0"))],
        ),
        ({"parameters": {"plan": {"splits": 2}}}, [("parameters", "plan.splits", (None, 2))]),
    ],
)
def test_only_what_differs(changes: dict[str, Any], expected: list[Any]) -> None:
    """A difference stands in its section under its path, with both values; nothing else is listed."""
    found = compare_subjects([subject("a", run_with()), subject("b", run_with(**changes))])
    assert expected == [(row.section, row.name, row.values) for row in found.differing]
    assert not found.is_same


def test_undefined_scores_are_equal() -> None:
    """A score that is not a number in both is no difference."""
    runs = [run_with(metrics={"crps": float("nan")}) for _ in range(2)]
    assert compare_subjects([subject("a", runs[0]), subject("b", runs[1])]).is_same


def test_where_data_stood_does_not_count() -> None:
    """Equal bytes from two places are equal data; how long a run took does not count."""
    one = run_with(parameters={"data": "a.csv"}, metrics={"model_seconds": 1.0})
    other = run_with(parameters={"data": "b.csv"}, metrics={"model_seconds": 2.0})
    found = compare_subjects([subject("a", one), subject("b", other)])
    assert found.is_same
    assert [("effort", "model_seconds")] == [(row.section, row.name) for row in found.differing]


def test_changes_of_a_table() -> None:
    """Added periods and changed values are counted, with an example."""
    assert [
        "2 periods added: 2020-03 to 2020-04",
        "2 → 4 rows (+2)",
        "disease_cases: 1 of 2 values changed, such as A 2020-02: 2 → 5",
    ] == describe_changes(table_of([1, 2]), table_of([1, 5, 3, 4]))


def test_same_table_written_in_another_way() -> None:
    """A number is the same whether it is written with a decimal point or not."""
    (line,) = describe_changes(table_of([1, 2]), table_of([1, 2]).astype({"disease_cases": "float64"}))
    assert line.startswith("the same values")


def test_causes_are_ranked() -> None:
    """Data come before config, config before code; what is equal is named."""
    data = make_artifact("dataset", "revised")
    before = run_with()
    after = run_with(
        inputs=(Edge(role="data", artifact=data),),
        outputs=(Edge(role="model", artifact=make_artifact("training_workspace", "other", level=0)),),
        config=make_config(n_lags=4),
        code=make_code("abc"),
    )
    tables = {data.digest: table_of([1, 3])}
    found = explain(before, after, read=lambda artifact: tables.get(artifact.digest, table_of([1, 2])))
    assert ["data", "config", "code"] == [cause.kind for cause in found.causes]
    assert ("disease_cases: 1 of 2 values changed, such as A 2020-02: 2 → 3",) == found.causes[0].details
    assert ("~ n_lags: 3 → 4",) == found.causes[1].details
    assert "Python and 2 packages" in found.equal


def test_chance_is_named() -> None:
    """Equal inputs and other results mean that the model is not deterministic; the data are not read for that."""
    other = (Edge(role="model", artifact=make_artifact("training_workspace", "other", level=0)),)
    found = explain(run_with(), run_with(outputs=other), read=refuse)
    assert ["chance"] == [cause.kind for cause in found.causes]
    assert "rain is not deterministic" in found.causes[0].text


def test_same_results_need_no_cause() -> None:
    """Equal inputs and results have no cause for a difference."""
    found = explain(run_with(), run_with(), read=refuse)
    assert (True, ()) == (found.is_same, found.causes)
