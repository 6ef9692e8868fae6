"""A page about a run or a model version that stands on its own: pictures inside, no script, nothing to fetch."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chapkit_flows.evaluation.metrics import METRICS
from chapkit_flows.evaluation.vintages import describe_plan, known_table, optimism_table
from chapkit_flows.lineage.assignments import Assignment, ModelVersion
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.reports.runs import leaves

# Whatever a config or a file is called: a browser must neither run nor fetch anything for this page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 sans-serif; color: #1e293b; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2rem; border-bottom: 1px solid #cbd5e1; font-size: 1.2rem }
table { border-collapse: collapse; margin: .5rem 0 } td, th { text-align: left; vertical-align: top;
padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e2e8f0; overflow-wrap: anywhere }
th { font-weight: 600; white-space: nowrap } img { max-width: 100%; height: auto } .lead { color: #475569 }
"""
_SKILL = "skill_"
_PARTIAL = ("vintage", "revised")  # what is of other inputs in part
_TITLES = {metric.name: f"{metric.title} ({metric.unit})" for metric in METRICS}

Rows = Sequence[tuple[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """What a page tells.

    Attributes:
        run: The run, or the training of a model version.
        version: The model version.
        changes: Of the aliases that ever pointed to it.
        backtest: The run whose scores are shown: the run itself, or the last one with the same config.
        pictures: PNGs, by what they show.
    """

    run: RunFact
    version: ModelVersion | None = None
    changes: Sequence[Assignment] = ()
    backtest: RunFact | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def write_page(content: PageContent) -> str:
    """The page as HTML."""
    run, version = content.run, content.version
    title = f"Model card: {version.name}" if version else f"{run.model}: {run.flow}"
    ended = f", {run.finished_at:%Y-%m-%d %H:%M} UTC" if run.finished_at else ""
    parts = [f"<h1>{_text(title)}</h1>", f'<p class="lead">Run {_text(run.id)}, {_text(run.status)}{ended}</p>']
    if version is not None:
        parts += [_section("Who registered and promoted it", _table(_history(version, content.changes)))]
    if run.error:
        parts.append(_section("Error", f"<pre>{_text(run.error)}</pre>"))
    parts += _scores(content)
    for name, picture in content.pictures.items():
        encoded = base64.b64encode(picture).decode()
        parts.append(_section(name, f'<img alt="{_text(name)}" src="data:image/png;base64,{encoded}">'))
    parts += _vintages(content.backtest)
    parts.append(_section("Limits", _list(limits(content))))
    parts += [_section(name, _table(rows)) for name, rows in _facts(run) if rows]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{_text(title)}</title><style>{_STYLE}</style>'
    )
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def limits(content: PageContent) -> list[str]:
    """What the facts say against trusting the forecasts, in sentences."""
    found = []
    trial = content.backtest
    if trial is None:
        found.append("No backtest of this model with this config is recorded: how good it is is not known.")
    else:
        found += _score_limits(trial)
    for edge in content.run.inputs:
        known = edge.artifact.metadata
        if edge.role not in _PARTIAL and {"places", "first", "last"} <= set(known):
            seen = f"{known['places']} places, {known['first']} to {known['last']}"
            found.append(f"As {edge.role} it has seen {seen}; of other places and times nothing is known.")
    if content.run.code is not None and content.run.code.dirty:
        found.append("The code had changes that are not committed: it cannot be got back from its repository.")
    return found


def _score_limits(trial: RunFact) -> list[str]:
    found = []
    worse = [name for name, value in trial.metrics.items() if name.startswith(_SKILL) and value <= 0]
    found += [f"It is not better than {name.removeprefix(_SKILL).replace('_', ' ')} by CRPS." for name in worse]
    covered = trial.metrics.get("coverage_90")
    if covered is not None and not 0.8 <= covered <= 0.97:
        found.append(f"Its 90 % intervals hold {covered:.0%} of the truths.")
    if trial.metrics.get("failed_folds"):
        found.append(f"{trial.metrics['failed_folds']:.0f} folds of its backtest failed.")
    given = trial.parameters
    if given.get("vintages") is None:
        found.append("Its backtest used data as known now: where values are revised later, it looks better than it is.")
    text = f"Its scores are of {trial.metrics.get('folds', 0):.0f} folds, {given.get('periods')} periods ahead"
    found.append(f"{text}, with covariates ahead: {given.get('covariates')}.")
    return found


def _scores(content: PageContent) -> list[str]:
    trial = content.backtest
    if trial is None:
        return []
    rows = [(_TITLES[name], f"{value:.4g}") for name, value in trial.metrics.items() if name in _TITLES]
    skills = [
        (name.removeprefix(_SKILL).replace("_", " "), f"{value:+.1%}")
        for name, value in trial.metrics.items()
        if name.startswith(_SKILL)
    ]
    parts = [_section("Scores", f"<p>Of the backtest {_text(trial.id)}.</p>{_table(rows)}")]
    if skills:
        parts.append(_section("Skill in CRPS against the baselines (+10 % is a tenth better)", _table(skills)))
    return parts


def _vintages(trial: RunFact | None) -> list[str]:
    """How much better revised data would have looked, and what was known at each origin."""
    revised = trial.find_output("revised_scores") if trial is not None else None
    if trial is None or revised is None:
        return []
    lead = describe_plan(trial.parameters["vintages"])
    optimism, known = optimism_table(revised.metadata["optimism"]), known_table(revised.metadata["known"])
    return [
        _section("How optimistic revised data are", f"<p>{_text(lead)} The scores above are so.</p>{_grid(*optimism)}"),
        _section("What was known at each origin", _grid(*known)),
    ]


def _history(version: ModelVersion, changes: Sequence[Assignment]) -> Rows:
    note = f": {version.note}" if version.note else ""
    rows = [(f"{version.registered_at:%Y-%m-%d %H:%M}", f"registered by {version.registered_by}{note}")]
    for one in changes:
        target = "nothing" if one.number is None else f"{one.model}@{one.number}"
        text = f"{one.action}: {one.alias} is {target}, by {one.actor}: {one.reason}"
        rows.append((f"{one.moment:%Y-%m-%d %H:%M}", text))
    return rows


def _facts(run: RunFact) -> list[tuple[str, Rows]]:
    data: list[tuple[str, object]] = []
    for edge in run.inputs:
        known = edge.artifact.metadata
        about = f", {known['rows']} rows" if known.get("rows") else ""
        data.append((edge.role, f"{run.name_of(edge)}{about}\n{edge.artifact.digest}"))
    config = list(leaves(run.config.content)) if run.config and run.config.content else []
    given = list(leaves(dict(run.parameters))) if run.parameters else []
    code: list[tuple[str, object]] = []
    if run.code is not None:
        code = [
            ("Defined in", run.entrypoint or ""),
            ("Commit", run.code.git_commit or "not in git"),
            ("Local changes", run.code.patch_digest or "none"),
            ("Model file", run.code.source_digest or ""),
            ("Python", run.code.python),
            ("Packages", ", ".join(f"{name} {version}" for name, version in run.code.packages.items())),
        ]
    made = [(edge.role, f"{edge.artifact.id}\n{edge.artifact.digest}") for edge in run.outputs]
    model = run.find_output("model")
    said = list(leaves(model.metadata.get("about") or {})) if model is not None else []
    return [
        ("About the model", said),
        ("Data", data),
        ("Config", config),
        ("Parameters", given),
        ("Code", code),
        ("Made", made),
    ]


def _section(title: str, body: str) -> str:
    return f"<h2>{_text(title)}</h2>\n{body}"


def _table(rows: Rows) -> str:
    lines = [f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows]
    return f"<table>{''.join(lines)}</table>"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    lines = ["".join(f"<td>{_text(cell)}</td>" for cell in row) for row in rows]
    return f"<table><tr>{top}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _text(value: object) -> str:
    return html.escape(str(value)).replace("\n", "<br>")
