"""Gates: rules that the scores of a candidate must pass before it may take the champion's place.

A gate is written as a list of rules, each with one key that names its kind:

    - better: {metric: crps, by: 0.02, p_below: 0.1}       # at least 2 % better than the champion, p < 0.1
    - within: {metric: coverage_90, low: 0.80, high: 0.97} # whatever the champion has
    - no_place_worse: {metric: crps, by: 0.20}             # no place more than 20 % worse than with the champion
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache, partial
from typing import Any, Literal, TypeAlias, get_args

import pandas as pd
import yaml

from chapkit_flows.errors import InvalidGate
from chapkit_flows.evaluation.comparison import Unit, paired_rows, significance, summary_of
from chapkit_flows.evaluation.metrics import METRICS, Metric, metric_named
from chapkit_flows.refs import Diagnostic


@dataclass(frozen=True, slots=True, kw_only=True)
class Better:
    """The candidate's score is better than the champion's, by a share of it and not by chance.

    Attributes:
        metric: One of which less is better.
        by: The least skill: 0.02 for 2 % better.
        p_below: What the p-value must be below; None for no test.
        test: Which test gives it.
        unit: What the test takes as one observation: a few overlapping folds can hardly be significant.
    """

    metric: str
    by: float = 0.0
    p_below: float | None = None
    test: Literal["diebold_mariano", "bootstrap"] = "diebold_mariano"
    unit: Unit = "fold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """The candidate's own score is between two values, ends included."""

    metric: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPlaceWorse:
    """In no place is the candidate's score worse than the champion's by more than a share of it.

    Attributes:
        metric: One of which less is better.
        by: The largest loss: 0.2 for 20 % worse.
    """

    metric: str
    by: float = 0.0


Rule: TypeAlias = Better | Within | NoPlaceWorse
_PARAMETER_CHOICES = {"test": ("diebold_mariano", "bootstrap"), "unit": get_args(Unit)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Rules that must all hold."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a gate says.

    Attributes:
        passed: Whether all rules hold.
        findings: An error for each rule that does not hold or cannot be judged, information on the others.
        evidence: For each rule its kind, parameters, whether it holds, and the numbers that it was judged by, as JSON.
    """

    passed: bool
    findings: tuple[Diagnostic, ...]
    evidence: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain JSON types."""
        findings = [asdict(found) for found in self.findings]
        return {"passed": self.passed, "findings": findings, "evidence": [dict(each) for each in self.evidence]}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    holds: bool
    message: str
    numbers: Mapping[str, Any]


def read_gate(document: str | Sequence[Any] | Mapping[str, Any], *, metrics: Sequence[Metric] = METRICS) -> Gate:
    """Read a gate.

    Args:
        document: A list of rules, or a mapping with that list under `rules`, or either as YAML text.
        metrics: The metrics that rules may name.

    Raises:
        InvalidGate: It is not a list of rules, a rule has no known kind, an unknown or missing parameter, or a
            value that does not fit.
        UnknownMetric: A rule names a metric that there is not.
    """
    if isinstance(document, str):
        try:
            document = yaml.safe_load(document)
        except yaml.YAMLError as error:
            raise InvalidGate(f"The gate is not readable YAML: {error}") from error
    rules = document.get("rules") if isinstance(document, Mapping) else document
    if isinstance(rules, str) or not isinstance(rules, Sequence) or not rules:
        raise InvalidGate("A gate is a list of rules, such as: - better: {metric: crps, by: 0.02, p_below: 0.1}")
    return Gate(rules=tuple(_read_rule(rule, number, metrics) for number, rule in enumerate(rules, start=1)))


def _kinds() -> dict[str, type[Rule]]:
    return {"better": Better, "within": Within, "no_place_worse": NoPlaceWorse}


def _read_rule(rule: Any, number: int, metrics: Sequence[Metric]) -> Rule:
    kinds = _kinds()
    if not isinstance(rule, Mapping) or len(rule) != 1 or next(iter(rule)) not in kinds:
        raise InvalidGate(f"Rule {number} is {rule!r}; write one kind and its values: {', '.join(kinds)}.")
    name, values = next(iter(rule.items()))
    kind = kinds[name]
    known = {field.name: field for field in fields(kind)}
    if not isinstance(values, Mapping) or (strange := [key for key in values if key not in known]):
        given = values if not isinstance(values, Mapping) else f"has {strange[0]!r}"
        raise InvalidGate(f"Rule {number} ({name}) {given}; its values are {', '.join(known)}.")
    if lacking := [key for key, field in known.items() if field.default is MISSING and key not in values]:
        raise InvalidGate(f"Rule {number} ({name}) lacks {lacking[0]!r}.")
    for key, value in values.items():
        _check_value(f"Rule {number} ({name})", key, value)
    metric = metric_named(values["metric"], metrics)
    if kind is not Within and metric.orientation != "lower":
        raise InvalidGate(f"Rule {number} ({name}): {metric.name} is not a metric of which less is better.")
    read: Rule = kind(**values)
    if isinstance(read, Within) and (read.low > read.high or (read.low == -math.inf and read.high == math.inf)):
        raise InvalidGate(f"Rule {number} (within): no value is outside or none inside; write low, high or both.")
    return read


def _check_value(place: str, key: str, value: Any) -> None:
    if key == "metric":
        fits, wanted = isinstance(value, str), "the name of a metric"
    elif key in _PARAMETER_CHOICES:
        fits, wanted = value in _PARAMETER_CHOICES[key], " or ".join(_PARAMETER_CHOICES[key])
    else:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        low, high = {"p_below": (0, 1), "by": (0, math.inf)}.get(key, (-math.inf, math.inf))
        fits = is_number and low <= value <= high
        wanted = {"p_below": "a number from 0 to 1", "by": "a number, 0 or more"}.get(key, "a number")
    if not fits:
        raise InvalidGate(f"{place}: {key} is {value!r}; write {wanted}.")


def judge(
    gate: Gate,
    candidate: pd.DataFrame,
    champion: pd.DataFrame | None,
    *,
    seed: int = 0,
    metrics: Sequence[Metric] = METRICS,
) -> Verdict:
    """Judge the scores of a candidate.

    Rules that compare do so on the rows that both have scores for: same origin, place and period. A rule that cannot
    be judged does not hold.

    Args:
        gate: The rules.
        candidate: As `score_split` returns them, of all folds below each other.
        champion: Those of the champion; None if there is none yet: rules that compare then hold.
        seed: Of the bootstrap.
        metrics: The table of metrics.
    """
    findings, evidence = [], []
    # Most gates compare one metric in several ways.
    pair = cache(partial(paired_rows, candidate, champion)) if champion is not None else None
    for rule in gate.rules:
        metric = metric_named(rule.metric, metrics)
        kind = next(name for name, each in _kinds().items() if isinstance(rule, each))
        judged = _judge(rule, candidate, champion, metric, seed=seed, pair=pair)
        found = Diagnostic.info if judged.holds else Diagnostic.error
        findings.append(found(f"gate_{kind}", judged.message, f"scores.{metric.name}"))
        parameters = {key: value for key, value in asdict(rule).items() if value not in (math.inf, -math.inf)}
        evidence.append({"rule": kind, **parameters, "holds": judged.holds, **judged.numbers})
    return Verdict(passed=all(each["holds"] for each in evidence), findings=tuple(findings), evidence=tuple(evidence))


def _judge(
    rule: Rule,
    candidate: pd.DataFrame,
    champion: pd.DataFrame | None,
    metric: Metric,
    *,
    seed: int,
    pair: Callable[[str], tuple[pd.DataFrame, int]] | None,
) -> _Judgement:
    if metric.name not in candidate.columns:
        return _Judgement(holds=False, message=f"The candidate was not scored by {metric.name}.", numbers={"n": 0})
    if isinstance(rule, Within):
        return _judge_within(rule, candidate, metric)
    if champion is None or pair is None:
        message = f"There is no champion to compare {metric.name} with."
        return _Judgement(holds=True, message=message, numbers={"champion": None})
    if metric.name not in champion.columns:
        return _Judgement(holds=False, message=f"The champion was not scored by {metric.name}.", numbers={"n_pairs": 0})
    pairs, unpaired = pair(metric.name)
    counts = {"n_pairs": len(pairs), "n_unpaired": unpaired}
    if pairs.empty:
        message = f"Candidate and champion have no scored row of {metric.name} in common: score both on the same folds."
        return _Judgement(holds=False, message=message, numbers=counts)
    if isinstance(rule, Better):
        return _judge_better(rule, pairs, metric, counts, seed)
    return _judge_places(rule, pairs, metric, counts)


def _judge_within(rule: Within, candidate: pd.DataFrame, metric: Metric) -> _Judgement:
    known = candidate[metric.name].dropna()
    if known.empty:
        message = f"{metric.title} is not defined for any row of the candidate."
        return _Judgement(holds=False, message=message, numbers={"value": None, "n": 0})
    value = summary_of(known, metric)
    holds = rule.low <= value <= rule.high
    bounds = f"from {rule.low:g} to {rule.high:g}"
    if rule.high == math.inf:
        bounds = f"at least {rule.low:g}"
    elif rule.low == -math.inf:
        bounds = f"at most {rule.high:g}"
    message = f"{metric.title} is {value:.4g}; it must be {bounds}."
    return _Judgement(holds=holds, message=message, numbers={"value": value, "n": len(known)})


def _judge_better(rule: Better, pairs: pd.DataFrame, metric: Metric, counts: dict[str, Any], seed: int) -> _Judgement:
    value, other = summary_of(pairs["score"], metric), summary_of(pairs["reference"], metric)
    tested = significance(pairs, metric, unit=rule.unit, seed=seed)
    test = tested.bootstrap if rule.test == "bootstrap" else tested.diebold_mariano
    skill = _skill(value, other)
    large_enough = skill is not None and skill >= rule.by
    sure_enough = rule.p_below is None or (test.p_value is not None and test.p_value < rule.p_below)
    reached = "no skill, as the champion's is 0" if skill is None else f"{skill:.1%} better"
    message = f"{metric.title} is {value:.4g}, the champion's {other:.4g}: {reached}; {rule.by:.1%} is wanted."
    if rule.p_below is not None:
        message += f" p = {_shown(test.p_value)}; it must be below {rule.p_below:g}."
    message += f" ({test.note})" if test.note else ""
    numbers = {
        "value": value, "champion": other, "skill": skill, "p_value": test.p_value, "n_units": tested.n_units,
        "note": test.note, **counts,
    }  # fmt: skip
    return _Judgement(holds=large_enough and sure_enough, message=message, numbers=numbers)


def _judge_places(rule: NoPlaceWorse, pairs: pd.DataFrame, metric: Metric, counts: dict[str, Any]) -> _Judgement:
    power = 2 if metric.summary == "root_mean_square" else 1
    means = (pairs[["score", "reference"]] ** power).groupby(pairs["location"]).mean() ** (1 / power)
    skills = {str(place): _skill(float(value), float(other)) for place, value, other in means.itertuples()}
    # Against a champion without error any error is infinitely worse.
    losses = {place: -skill if skill is not None else math.inf for place, skill in skills.items()}
    worse = {place: loss for place, loss in losses.items() if loss > rule.by}
    place, loss = max(losses.items(), key=lambda item: item[1])
    message = (
        f"{metric.title} is more than {rule.by:.1%} worse in {len(worse)} of {len(losses)} places; "
        f"{'worst' if loss > 0 else 'least better'} in {place} "
        f"({f'{loss:+.1%}' if math.isfinite(loss) else 'where the champion has no error'})."
    )
    ranked = sorted(worse.items(), key=lambda item: -item[1])
    listed = {place: _finite(loss) for place, loss in ranked}
    numbers = {"worst_place": place, "worst_loss": _finite(loss), "places_worse": listed, "n_places": len(losses)}
    return _Judgement(holds=not worse, message=message, numbers=numbers | counts)


def _skill(value: float, other: float) -> float | None:
    """How much better than the champion; None where that has no error and the candidate has."""
    if other == 0:
        return 0.0 if value == 0 else None
    return 1 - value / other


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(p_value: float | None) -> str:
    return "unknown" if p_value is None else f"{p_value:.3g}"
