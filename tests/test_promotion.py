"""Promotion through a gate: what is compared, what is refused, and what is kept as evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import CommandLine

from chapkit_flows import open_resources, registry
from chapkit_flows.artifacts.codecs import save
from chapkit_flows.errors import PromotionConflict, RegistryError
from chapkit_flows.evaluation.gates import read_gate
from chapkit_flows.lineage.assignments import Decision, ModelVersion
from chapkit_flows.lineage.facts import Edge, RunFact
from chapkit_flows.promotion import promote_through
from chapkit_flows.refs import ArtifactRef, new_id
from chapkit_flows.resources import Resources
from chapkit_flows.testing.facts import make_code, make_config, make_training, record_run

GATE = "- better: {metric: crps, by: 0.02}\n- within: {metric: coverage_90, low: 0.8, high: 0.97}\n"
DECISION = Decision(actor="ana", reason="less error")
pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(capsys, monkeypatch)


def make_scores(crps: float) -> pd.DataFrame:
    """Scores of four folds and three places, those of one fold a little better."""
    rows = [
        {"fold": fold, "origin": f"2020-0{fold + 1}", "location": place, "time_period": f"2020-0{fold + 2}"}
        | {"horizon": 1, "excluded": "", "crps": crps - 0.1 * fold, "coverage_90": 0.9}
        for fold in range(4)
        for place in "abc"
    ]
    return pd.DataFrame(rows)


def train(n_lags: int, commit: str = "5f3c2ab") -> ModelVersion:
    """A registered model of its own config."""
    resources = open_resources()
    outcome = replace(make_training(workspace=new_id()), config=make_config(n_lags=n_lags), code=make_code(commit))
    run = record_run(resources.database, outcome)
    return registry.register(resources, run.output("model").id, by="ana")


def backtest(n_lags: int, crps: float, commit: str = "5f3c2ab", **given: Any) -> RunFact:
    """A backtest of a config that came to a mean CRPS, started with some parameters."""
    resources = open_resources()
    saved = save(resources.store, make_scores(crps))
    scores = ArtifactRef(
        id=new_id(),
        kind="metrics",
        digest=saved.digest,
        size=saved.size,
        media_type=saved.media_type,
        codec=saved.codec,
    )
    outcome = replace(
        make_training(), outputs=(Edge(role="scores", artifact=scores),), config=make_config(n_lags=n_lags),
        code=make_code(commit),
    )  # fmt: skip
    return record_run(resources.database, outcome, flow="backtest", parameters=given)


@pytest.fixture
def gate_file(tmp_path: Path) -> Path:
    file = tmp_path / "gate.yaml"
    file.write_text(GATE)
    return file


def test_promotes_the_better_one(cli: CommandLine, gate_file: Path) -> None:
    """Without a champion there is nothing to compare with; a better candidate passes, and its numbers are kept."""
    first, second = train(1), train(2)
    older, newer = backtest(1, 12.0), backtest(2, 10.0)
    told = cli("models", "promote", "rain@1", "--gate", gate_file, "--reason", "the first")
    assert (0, True) == (told.code, "There is no champion to compare crps with." in told.out)
    change = cli("models", "promote", "rain@2", "--gate", gate_file, "--reason", "less error", "--json").json
    evidence = change["evidence"]
    assert (2, True) == (change["number"], evidence["passed"])
    assert (older.id, newer.id) == (evidence["champion"]["backtest"], evidence["candidate"]["backtest"])
    better, within = evidence["evidence"]
    assert pytest.approx(1 - 9.85 / 11.85) == better["skill"]
    assert 12 == better["n_pairs"] == within["n"]
    kept = cli("models", "history", "rain", "--json").json["assignments"]
    assert evidence == kept[-1]["evidence"]
    assert (first.number, second.number) == (1, 2)


def test_refuses_the_worse_one(cli: CommandLine, gate_file: Path) -> None:
    """A candidate that does not pass is refused with the findings and exit code 1; nothing has changed."""
    train(1), train(2)
    backtest(1, 12.0), backtest(2, 11.9)
    cli("models", "promote", "rain@1", "--reason", "the first")
    refused = cli("models", "promote", "rain@2", "--gate", gate_file, "--reason", "newer")
    assert 1 == refused.code
    assert "rain@1 stays it. Nothing was changed." in refused.err
    assert "gate_better" in refused.err and "2.0% is wanted" in refused.err
    told = cli("models", "promote", "rain@2", "--gate", gate_file, "--reason", "newer", "--json")
    assert (1, "GateFailed") == (told.code, told.json["error"]["type"])
    assert ["error", "error", "info"] == [found["severity"] for found in told.json["error"]["diagnostics"]]
    assert [1] == [one["number"] for one in cli("models", "history", "rain", "--json").json["assignments"]]


def test_newest_backtest_of_the_same_config_and_code_counts() -> None:
    """Of several backtests the newest with the version's config and code is judged, whatever other code has come to."""
    train(1)
    version = train(2, "aaaaaaa")
    backtest(2, 1.0, "bbbbbbb")
    backtest(2, 99.0, "aaaaaaa")
    wanted = backtest(2, 10.0, "aaaaaaa")
    change = promote_through(open_resources(), version, read_gate(GATE), alias="champion", decision=DECISION)
    assert change.evidence is not None
    assert wanted.id == change.evidence["candidate"]["backtest"]


@pytest.mark.parametrize(
    "knew_more",
    [{"covariates": "observed"}, {"covariates": "climatology", "vintages": None}],
    ids=["observed covariates", "revised data"],
)
@pytest.mark.parametrize("again", ["candidate", "champion"])
def test_forecasts_that_knew_as_much_are_compared(knew_more: dict[str, Any], again: str) -> None:
    """Backtests on revised data or the weather as it came are not held against those that knew less, if newer ones."""
    knew = {"covariates": "climatology", "vintages": {"delay_days": 0, "truth_lag_days": None}}
    versions = [train(1), train(2)]
    alike = [backtest(1, 10.0, **knew), backtest(2, 9.0, **knew)]
    backtest(2 if again == "candidate" else 1, 1.0, **knew_more)
    registry.promote(open_resources(), versions[0], alias="champion", expected=None, decision=DECISION)
    change = promote_through(open_resources(), versions[1], read_gate(GATE), alias="champion", decision=DECISION)
    assert change.evidence is not None
    assert [one.id for one in alike] == [change.evidence[name]["backtest"] for name in ("champion", "candidate")]


def test_forecasts_that_never_knew_as_much_are_not_compared() -> None:
    """Where no backtests of both knew as much, the promotion is refused and says what to make."""
    versions = [train(1), train(2)]
    backtest(1, 10.0, covariates="climatology")
    backtest(2, 1.0, covariates="observed")
    registry.promote(open_resources(), versions[0], alias="champion", expected=None, decision=DECISION)
    with pytest.raises(RegistryError, match=r"rain@2 had covariates observed and .* covariates climatology"):
        promote_through(open_resources(), versions[1], read_gate(GATE), alias="champion", decision=DECISION)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- better: {metric: crsp}", "crsp"),
        ("- better: [crps]", "its values are"),
        ("[", "not readable YAML"),
    ],
)
def test_refuses_gates(cli: CommandLine, gate_file: Path, text: str, words: str) -> None:
    """A gate that cannot be read, or names a metric that there is not, is refused before anything is looked up."""
    gate_file.write_text(text)
    refused = cli("models", "promote", "rain@1", "--gate", gate_file, "--reason", "x")
    assert 2 == refused.code
    assert words in refused.err


def test_refuses_what_was_not_tried(cli: CommandLine, gate_file: Path) -> None:
    """A version without a backtest, a failed training and the artifact of another kind of run cannot be promoted."""
    train(1)
    refused = cli("models", "promote", "rain@1", "--gate", gate_file, "--reason", "x")
    assert 2 == refused.code
    assert "There is no completed backtest of rain@1" in refused.err
    database = open_resources().database
    failed = record_run(database, replace(make_training(workspace="bad"), status="failed"))
    foreign = backtest(1, 10.0)
    for artifact in (failed.output("model"), foreign.output("scores")):
        assert "is not registered" in cli("models", "promote", artifact.id, "--reason", "x", "--gate", gate_file).err
        assert 2 == cli("models", "register", artifact.id).code
    assert [] == cli("models", "history", "rain", "--json").json["assignments"]


def test_one_of_two_promotions_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promotion during which another one is made changes nothing and says who was faster."""
    versions = [train(number) for number in (1, 2, 3)]
    for number in (1, 2, 3):
        backtest(number, 12.0 - number)
    resources = open_resources()
    promote_through(resources, versions[0], read_gate(GATE), alias="champion", decision=DECISION)
    honest = registry.promote

    def overtaken(resources: Resources, version: ModelVersion, **given: object) -> object:
        monkeypatch.undo()
        promote_through(resources, versions[2], read_gate(GATE), alias="champion", decision=DECISION)
        return honest(resources, version, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(registry, "promote", overtaken)
    with pytest.raises(PromotionConflict, match="is version 3 by now"):
        promote_through(resources, versions[1], read_gate(GATE), alias="champion", decision=DECISION)


def test_champion_without_a_backtest_is_named(gate_file: Path) -> None:
    """Where the champion was never tried, nothing is promoted past it."""
    first, second = train(1), train(2)
    backtest(2, 10.0)
    resources = open_resources()
    registry.promote(resources, first, alias="champion", expected=None, decision=DECISION)
    with pytest.raises(RegistryError, match="no completed backtest of rain@1"):
        promote_through(resources, second, read_gate(GATE), alias="champion", decision=DECISION)
