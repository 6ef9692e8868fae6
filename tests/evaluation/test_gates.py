"""A gate is refused when it cannot be meant, and its verdict carries the numbers it was reached by."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from chapkit_flows.errors import InvalidGate, UnknownMetric
from chapkit_flows.evaluation.gates import Better, Gate, NoPlaceWorse, Within, judge, read_gate

TEXT = """
- better: {metric: crps, by: 0.02, p_below: 0.1}
- within: {metric: coverage_90, low: 0.80, high: 0.97}
- no_place_worse: {metric: crps, by: 0.20}
"""
RULES = (
    Better(metric="crps", by=0.02, p_below=0.1),
    Within(metric="coverage_90", low=0.80, high=0.97),
    NoPlaceWorse(metric="crps", by=0.20),
)
BASE = np.random.default_rng(2).gamma(8, 2, (8, 4))


def _scores(values: np.ndarray, covered: float = 0.9) -> pd.DataFrame:
    rows = [
        (f"2020-{fold + 1:02d}", f"place {place}", f"2020-{fold + 2:02d}", values[fold, place], covered)
        for fold, place in np.ndindex(*values.shape)
    ]
    return pd.DataFrame(rows, columns=["origin", "location", "time_period", "crps", "coverage_90"])


BETTER = BASE - np.random.default_rng(3).normal(2, 0.5, BASE.shape)


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: "rules:\n" + text])
def test_reads_yaml(wrap: object) -> None:
    """A gate is YAML text, or what it says as lists and mappings."""
    assert Gate(rules=RULES) == read_gate(wrap(TEXT))
    assert Gate(rules=RULES[:1]) == read_gate([{"better": {"metric": "crps", "by": 0.02, "p_below": 0.1}}])


@pytest.mark.parametrize(
    ("document", "kind", "message"),
    [
        ("- better: {metric: crpss}", UnknownMetric, r"No metric 'crpss'\. Write one of crps,"),
        ("- best: {metric: crps}", InvalidGate, "Rule 1 is .*; write one kind .*: better, within, no_place_worse"),
        ("- better: {metric: crps}\n- better", InvalidGate, "Rule 2 is 'better'"),
        (
            "- better: {metric: crps, least: 1}",
            InvalidGate,
            r"Rule 1 \(better\) has 'least'; its values are",
        ),
        ("- better: {by: 0.1}", InvalidGate, "lacks 'metric'"),
        ("- better: crps", InvalidGate, r"Rule 1 \(better\) crps; its values are"),
        ("- better: {metric: crps, by: 2 %}", InvalidGate, "by is '2 %'; write a number, 0 or more"),
        ("- better: {metric: crps, by: -0.1}", InvalidGate, "by is -0.1"),
        ("- better: {metric: crps, by: true}", InvalidGate, "by is True"),
        ("- better: {metric: crps, p_below: 5}", InvalidGate, "p_below is 5; write a number from 0 to 1"),
        ("- better: {metric: crps, by: .nan}", InvalidGate, "by is nan"),
        ("- better: {metric: crps, test: t}", InvalidGate, "test is 't'; write diebold_mariano or bootstrap"),
        ("- better: {metric: crps, unit: week}", InvalidGate, "unit is 'week'; write fold or place"),
        ("- better: {metric: 3}", InvalidGate, "metric is 3"),
        ("- better: {metric: coverage_90}", InvalidGate, "coverage_90 is not a metric of which less is better"),
        ("- within: {metric: crps, low: 2, high: 1}", InvalidGate, "write low, high or both"),
        ("- within: {metric: crps}", InvalidGate, "write low, high or both"),
        ("", InvalidGate, "A gate is a list of rules"),
        ("[]", InvalidGate, "A gate is a list of rules"),
        ("crps", InvalidGate, "A gate is a list of rules"),
        ("{rules: {better: 1}}", InvalidGate, "A gate is a list of rules"),
        ("- better: {metric: crps", InvalidGate, "not readable YAML"),
    ],
)
def test_refuses_what_cannot_be_meant(document: str, kind: type[Exception], message: str) -> None:
    """A gate is refused when it is read, not when a promotion waits for it."""
    with pytest.raises(kind, match=message):
        read_gate(document)


def test_better_candidate_passes_with_evidence() -> None:
    """All rules hold, and the verdict has the numbers, as JSON."""
    verdict = judge(read_gate(TEXT), _scores(BETTER), _scores(BASE))
    assert verdict.passed
    assert ["info"] * 3 == [found.severity for found in verdict.findings]
    assert json.loads(json.dumps(verdict.as_json(), allow_nan=False)) == verdict.as_json()
    better, within, places = verdict.evidence
    assert 1 - BETTER.mean() / BASE.mean() == pytest.approx(better["skill"])
    assert stats.ttest_rel(BETTER.mean(axis=1), BASE.mean(axis=1)).pvalue == pytest.approx(better["p_value"])
    assert (8, 32, 0) == (better["n_units"], better["n_pairs"], better["n_unpaired"])
    assert (0.9, 32) == (pytest.approx(within["value"]), within["n"])
    losses = BETTER.mean(axis=0) / BASE.mean(axis=0) - 1
    assert (f"place {losses.argmax()}", pytest.approx(losses.max())) == (places["worst_place"], places["worst_loss"])


@pytest.mark.parametrize(
    ("candidate", "failed", "message"),
    [
        (_scores(BASE), ["gate_better"], "0.0% better; 2.0% is wanted. p = 1; it must be below 0.1"),
        (_scores(BASE * 0.99), ["gate_better"], "1.0% better; 2.0% is wanted"),
        (_scores(BETTER, covered=0.99), ["gate_within"], "is 0.99; it must be from 0.8 to 0.97"),
        (_scores(BASE * [0.5, 0.6, 1.5, 0.6]), ["gate_no_place_worse"], "in 1 of 4 places; worst in place 2 (+"),
        (_scores(BASE * 2, covered=0), ["gate_better", "gate_within", "gate_no_place_worse"], "-100.0% better"),
        (_scores(BETTER[:1]), ["gate_better"], "p = unknown; it must be below 0.1. (one fold or place only: no test)"),
    ],
    ids=["equal", "too little", "too wide", "a place", "worse", "one fold"],
)
def test_candidate_that_does_not_pass(candidate: pd.DataFrame, failed: list[str], message: str) -> None:
    """Each rule that does not hold is an error with its numbers."""
    verdict = judge(read_gate(TEXT), candidate, _scores(BASE))
    assert not verdict.passed
    assert failed == [found.code for found in verdict.findings if found.severity == "error"]
    assert message in "\n".join(found.message for found in verdict.findings)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ("low: 0.95", "is 0.9; it must be at least 0.95."),
        ("high: 0.8", "is 0.9; it must be at most 0.8."),
        ("low: 0.1, high: 0.2", "is 0.9; it must be from 0.1 to 0.2."),
    ],
)
def test_bounds_in_words(bounds: str, words: str) -> None:
    """A bound that a rule does not have is not printed."""
    (found,) = judge(read_gate(f"- within: {{metric: coverage_90, {bounds}}}"), _scores(BASE), None).findings
    assert words in found.message


def test_champion_without_error_in_words() -> None:
    """A place where the champion has no error has no share of it that could be printed."""
    (found,) = judge(
        read_gate([{"no_place_worse": {"metric": "crps"}}]), _scores(BASE), _scores(BASE * [0.0, 1, 1, 1])
    ).findings
    assert ("error", True) == (found.severity, "in place 0 (where the champion has no error)" in found.message)


def test_p_value_can_be_over_places_or_by_bootstrap() -> None:
    """The rule says which test, and what it takes as one observation."""
    gate = read_gate([{"better": {"metric": "crps", "p_below": 0.1, "unit": "place"}}])
    (evidence,) = judge(gate, _scores(BETTER), _scores(BASE)).evidence
    assert 4 == evidence["n_units"]
    assert stats.ttest_rel(BETTER.mean(axis=0), BASE.mean(axis=0)).pvalue == pytest.approx(evidence["p_value"])
    gate = read_gate([{"better": {"metric": "crps", "p_below": 0.1, "test": "bootstrap"}}])
    (evidence,) = judge(gate, _scores(BETTER), _scores(BASE)).evidence
    assert 1 / 10_000 == pytest.approx(evidence["p_value"])


def test_only_common_rows_are_compared() -> None:
    """Folds that the champion lacks are left out of the comparison and counted."""
    (evidence, *_) = judge(read_gate(TEXT), _scores(BETTER), _scores(BASE[:6])).evidence
    assert (24, 8) == (evidence["n_pairs"], evidence["n_unpaired"])
    assert 1 - BETTER[:6].mean() / BASE[:6].mean() == pytest.approx(evidence["skill"])


def test_nothing_in_common_does_not_pass() -> None:
    """Scores of other folds say nothing about who is better."""
    verdict = judge(read_gate(TEXT), _scores(BETTER), _scores(BASE).assign(origin="2010-01"))
    assert ["gate_better", "gate_no_place_worse"] == [one.code for one in verdict.findings if one.severity == "error"]
    assert "score both on the same folds" in verdict.findings[0].message


def test_first_model_needs_no_champion() -> None:
    """Without a champion only the rules about the candidate itself count."""
    assert judge(read_gate(TEXT), _scores(BETTER), None).passed
    assert not judge(read_gate(TEXT), _scores(BETTER, covered=0.5), None).passed


@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_unscored_metric_does_not_pass(who: str) -> None:
    """A metric that was not computed, or is nowhere defined, fails the rule."""
    scores = {"candidate": _scores(BETTER), "champion": _scores(BASE)}
    scores[who] = scores[who].drop(columns="crps")
    verdict = judge(read_gate(TEXT), scores["candidate"], scores["champion"])
    assert f"The {who} was not scored by crps." == verdict.findings[0].message
    assert not judge(read_gate(TEXT), _scores(BETTER, covered=np.nan), _scores(BASE)).passed


def test_champion_without_error() -> None:
    """A perfect champion cannot be beaten by percent; an equally perfect candidate is not worse."""
    worse = judge(read_gate(TEXT), _scores(BASE), _scores(BASE * 0))
    assert (None, None) == (worse.evidence[0]["skill"], worse.evidence[2]["worst_loss"])
    json.dumps(worse.as_json(), allow_nan=False)
    equal = judge(read_gate([{"no_place_worse": {"metric": "crps"}}]), _scores(BASE * 0), _scores(BASE * 0))
    assert equal.passed
