"""What a backtest shows in the Prefect UI."""

from __future__ import annotations

import base64
import html

import pandas as pd
from prefect.artifacts import acreate_markdown_artifact

from chapkit_flows.evaluation.metrics import METRICS
from chapkit_flows.evaluation.scores import summarise
from chapkit_flows.evaluation.vintages import describe_plan, known_table, optimism_table
from chapkit_flows.flows.markdown import digits, folded, html_table, plain, table
from chapkit_flows.flows.pictures import PICTURES, Shown
from chapkit_flows.flows.skill import skills_of
from chapkit_flows.flows.summary import artifact_key, facts_table, next_step, origin_parts
from chapkit_flows.lineage.facts import RunFact

SKILL_METRICS = ("crps", "crps_log1p", "wis", "mae")
_BY = ("crps", "wis", "mae", "coverage_90")


async def publish_backtest(run: RunFact, shown: Shown) -> None:
    """Publish a markdown artifact: how good the forecasts were: overall, by horizon and by place."""
    await acreate_markdown_artifact(
        markdown=describe_backtest(run, shown),
        key=artifact_key(run.model, run.flow),
        description="How good the forecasts from past origins were",
    )


def describe_backtest(run: RunFact, shown: Shown) -> str:
    """The markdown of a backtest."""
    scores = shown.scores
    given = run.parameters
    failed = run.output("scores").metadata.get("failed", {})
    excluded = int((scores["excluded"] != "").sum())
    lead = (
        f"{scores['fold'].nunique()} folds, {given['periods']} periods ahead, {scores['location'].nunique()} places; "
        f"strategy {given['strategy']}, covariates ahead: {given['covariates']}."
    )
    if excluded:
        lead += f" {excluded} of {len(scores)} forecasts have no truth and are not scored."
    parts = [f"## {run.model}: backtest", lead, _overall(scores), *_vintages(run), next_step(run, "scores")]
    if failed:
        rows = [[plain(origin), plain(reason)] for origin, reason in failed.items()]
        parts += [f"### {len(failed)} folds failed", table(("Origin", "Why"), rows)]
    if shown.baselines:
        parts += ["### Skill against the baselines", _skill(shown)]
    for role, picture in shown.pictures.items():
        encoded = base64.b64encode(picture).decode()
        parts += [f"### {PICTURES[role]}", f"![{PICTURES[role]}](data:image/png;base64,{encoded})"]
    parts += ["### By periods ahead", _by(scores, "horizon", "Periods ahead")]
    places = _pivot(scores, "location")
    head = ["Place", *places.columns]
    rows = [[str(place), *map(digits, values)] for place, *values in places.itertuples()]
    parts.append(
        folded(f"By place: {len(rows)}", html_table(head, [[html.unescape(cell) for cell in row] for row in rows]))
    )
    return "\n\n".join([*parts, *origin_parts(run, "scores")])


def _vintages(run: RunFact) -> list[str]:
    """What was known at each origin, and how much better revised data would have looked."""
    revised = run.find_output("revised_scores")
    if revised is None:
        return []
    optimism, known = optimism_table(revised.metadata["optimism"]), known_table(revised.metadata["known"])
    return [
        "### How optimistic revised data are",
        f"{describe_plan(run.parameters['vintages'])} All scores above are of these forecasts. On revised data, as "
        "known now, the same folds look better by the optimism.",
        table(optimism[0], [[plain(text) for text in row] for row in optimism[1]]),
        "### What was known at each origin",
        table(known[0], [[plain(text) for text in row] for row in known[1]]),
    ]


async def publish_scores(run: RunFact, scores: pd.DataFrame | None) -> None:
    """Publish a markdown artifact: how good predictions were, now that the truth is known."""
    counts = {name: int(run.metrics.get(name, 0)) for name in ("scored", "waiting", "failed")}
    lead = f"{counts['scored']} scored, {counts['waiting']} without truth yet, {counts['failed']} not scorable."
    parts = [f"## {run.model}: predictions and the truth", lead]
    if scores is not None:
        parts += [_overall(scores), "### By periods ahead", _by(scores, "horizon", "Periods ahead")]
        parts += ["### By prediction", _by(scores, "prediction", "Prediction")]
    await acreate_markdown_artifact(
        markdown="\n\n".join([*parts, "### Made from", facts_table(run, None)]),
        key=artifact_key(run.model, run.flow),
        description="How good predictions were",
    )


def _overall(scores: pd.DataFrame) -> str:
    means = summarise(scores).set_index("metric")
    rows = [
        [metric.title, digits(means["value"][metric.name]), metric.unit, str(means["n"][metric.name])]
        for metric in METRICS
        # A forecast of one number has no intervals: what no row has a score of is left out.
        if metric.name in means.index and means["n"][metric.name] and not metric.name.startswith("pit_")
    ]
    return table(("Metric", "Mean", "Unit", "Rows"), rows)


def _skill(shown: Shown) -> str:
    """How much better than each baseline, on the folds that both have: 0.1 is a tenth better."""
    by_metric = {metric: skills_of(shown.scores, shown.baselines, metric) for metric in SKILL_METRICS}
    titles = {metric.name: metric.title for metric in METRICS}
    rows = []
    for name in by_metric["crps"]:
        (crps,) = by_metric["crps"][name].rows
        cells = [(compared[name].rows[0].skill if name in compared else None) for compared in by_metric.values()]
        chance = plain(crps.note) if crps.p_value is None else f"{crps.p_value:.2g}"
        shares = ["" if skill is None else f"{skill:+.1%}" for skill in cells]
        rows.append([plain(name.replace("_", " ")), digits(crps.reference_mean), *shares, chance])
    head = ["Baseline", "Its CRPS", *(f"Skill in {titles[metric]}" for metric in by_metric), "p of the CRPS"]
    return table(head, rows)


def _by(scores: pd.DataFrame, column: str, title: str) -> str:
    means = _pivot(scores, column)
    rows = [[plain(str(key)), *map(digits, values)] for key, *values in means.itertuples()]
    return table([title, *means.columns], rows)


def _pivot(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """A row per value of a column, a column per metric, under the titles of the metrics."""
    titles = {metric.name: metric.title for metric in METRICS if metric.name in _BY}
    means = summarise(scores, [column]).pivot(index=column, columns="metric", values="value")
    return means[[name for name in titles if name in means.columns]].rename(columns=titles)
