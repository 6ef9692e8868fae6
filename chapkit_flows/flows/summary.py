"""What a run shows in the Prefect UI.

The text is GitHub markdown that reads well in both of Prefect's UIs: the first draws no mermaid diagrams.
"""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlparse

import pandas as pd
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.settings import PREFECT_UI_URL

from chapkit_flows.flows.markdown import code, digits, folded, html_table, one_line, plain, table
from chapkit_flows.lineage.facts import Edge, Newer, RunFact
from chapkit_flows.refs import ArtifactRef, CodeVersion, ConfigRef, Diagnostic

_ROLES = {
    "data": "Training data",
    "historic": "Historic data",
    "future": "Future data",
    "vintage": "Known at an origin",
    "revised": "Known now",
    "geo": "Polygons",
    "model": "Trained model",
    "prediction": "Prediction",
    "workspace": "Prediction workspace",
    "plot": "Plot",
    "truth": "Truth",
    "scores": "Scores",
    "forecasts": "Forecasts",
    "baseline_scores": "Scores of the baselines",
    "revised_scores": "Scores on revised data",
    "plot_forecasts": "Plot of the forecasts",
    "plot_scores": "Plot of the scores",
    "plot_map": "Map of the scores",
    "report": "Report",
}
# Where the pages of both UIs begin, seen from one of an artifact or a run. By this a link stays in the UI that one is
# in, and works where people reach the server under another name than workers do.
_UI = "../.."
_ALL_PLACES = (
    "All of them are in the table that the command above downloads, and in the page of `chapkit-flows report`."
)
_MOST_ROWS = 20  # of a table that is open when the page is
NOTHING_STALE: Mapping[str, Sequence[Newer]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """A prediction as people look at it.

    Attributes:
        picture: A PNG of the first places.
        numbers: Of the same places: `location`, `time_period`, `median`, `q05`, `q95`.
        places: How many there are in all.
        is_point: Whether the model gave one number for each place and period, so that there are no intervals.
    """

    picture: bytes
    numbers: pd.DataFrame
    places: int
    is_point: bool


async def publish_summary(
    run: RunFact,
    *,
    parent: RunFact | None = None,
    forecast: Forecast | None = None,
    stale: Mapping[str, Sequence[Newer]] = NOTHING_STALE,
) -> None:
    """Publish a markdown artifact: what was made, what from, and how to go on.

    Args:
        parent: The training run behind a prediction.
        stale: Why inputs are stale, by their ids.
    """
    await acreate_markdown_artifact(
        markdown=summarise(run, parent=parent, forecast=forecast, stale=stale),
        key=artifact_key(run.model, run.flow),
        description=f"What this {run.flow} run made, and from what",
    )


async def publish_nothing_new(run: RunFact, current: ArtifactRef) -> None:
    """Publish a markdown artifact: why a retraining trained nothing, and which model stays in use."""
    parts = [
        f"## {run.model}: nothing new",
        f"The data, polygons, config, horizon, code and contract are those of the model in use, `{current.id}`, "
        f"trained {current.created_at:%Y-%m-%d %H:%M} UTC. It stays in use: `{run.model}@latest` names it.",
        "Installed packages are not compared. To train all the same: **Run** → **Custom run**, with `force` on.",
        "### Compared",
        facts_table(run, None),
    ]
    await acreate_markdown_artifact(
        markdown="\n\n".join(parts),
        key=artifact_key(run.model, run.flow),
        description=f"Why this {run.flow} run trained nothing",
    )


async def publish_diagnostics(model: str, diagnostics: Sequence[Diagnostic]) -> None:
    """Publish the findings of validation as a table artifact."""
    await acreate_table_artifact(
        table=diagnostic_rows(diagnostics),
        key=artifact_key(model, "diagnostics"),
        description=describe_diagnostics(diagnostics),
    )


def diagnostic_rows(diagnostics: Sequence[Diagnostic]) -> list[dict[str, str]]:
    """Findings as the rows of a table."""
    return [
        {"severity": found.severity, "code": found.code, "field": found.field or "", "message": found.message}
        for found in diagnostics
    ]


def describe_diagnostics(diagnostics: Sequence[Diagnostic]) -> str:
    """The first findings as markdown above their table, whose cells both UIs cut off at its edge."""
    lines = []
    for found in diagnostics[:_MOST_ROWS]:
        where = f" in {code(found.field)}" if found.field else ""
        lines.append(f"- **{found.severity}**{where}: {plain(one_line(found.message))}")
    more = len(diagnostics) - len(lines)
    head = f"Validation found {_count(diagnostics)}:\n"
    return "\n".join([head, *lines, *([f"\n… and {more} more in the table."] if more else [])])


def _count(diagnostics: Sequence[Diagnostic]) -> str:
    """How many findings there are of each severity: of the description, the list of artifacts shows one line."""
    counts = Counter(found.severity for found in diagnostics)
    return ", ".join(
        f"{counts[severity]} {severity}{'s' if counts[severity] > 1 and severity != 'info' else ''}"
        for severity in ("error", "warning", "info")
        if counts[severity]
    )


def artifact_key(model: str, what: str) -> str:
    """A key as Prefect wants it: lower-case letters, digits and dashes."""
    return f"{model}-{what}".replace("_", "-")


def summarise(
    run: RunFact,
    *,
    parent: RunFact | None = None,
    forecast: Forecast | None = None,
    stale: Mapping[str, Sequence[Newer]] = NOTHING_STALE,
) -> str:
    """The markdown of a run's summary."""
    made = next(edge for edge in run.outputs if edge.role in ("model", "prediction"))
    parts = [f"## {run.model}: {'trained' if made.role == 'model' else 'predicted'}", *_stale_lines(run, stale)]
    parts.append(next_step(run, made.role))
    if forecast is not None:
        parts += _forecast_parts(forecast)
    parts += _model_parts(run, made)
    return "\n\n".join([*parts, *origin_parts(run, made.role, parent)])


def origin_parts(run: RunFact, role: str, parent: RunFact | None = None) -> list[str]:
    """Parts of the markdown of a run: what the output of that role was made from, and by what."""
    made = next(edge for edge in run.outputs if edge.role == role)
    parts = ["### Made from", facts_table(run, parent), *_profile_parts(run)]
    parts += ["### Lineage", "\n".join(_lineage_list(run, made, parent))]
    drawing = f'<pre lang="mermaid"><code class="language-mermaid">{html.escape(_diagram(run, parent))}</code></pre>'
    return [*parts, folded("Diagram (drawn by Prefect's V2 UI only)", drawing), _packages(run)]


def _stale_lines(run: RunFact, stale: Mapping[str, Sequence[Newer]]) -> list[str]:
    """Which inputs were stale when the run ended, each as a paragraph."""
    return [
        f"**Stale:** {_role(edge).lower()} `{edge.artifact.id}`. {code(newer.uri)} has brought newer data, "
        f"`{newer.newer}`, on {newer.read_at:%Y-%m-%d %H:%M} UTC."
        for edge in run.inputs
        for newer in stale.get(edge.artifact.id, ())
    ]


def next_step(run: RunFact, role: str) -> str:
    """What one does with the output of that role."""
    made = run.output(role)
    if role == "prediction":
        return f"Prediction `{made.id}`. Download it as CSV:\n\n```\nchapkit-flows artifacts download {made.id}\n```"
    if role == "scores":
        return (
            f"Scores `{made.id}`: a row for each fold, place and period. Download them as CSV, or all of this as a "
            f"page that can be sent:\n\n```\nchapkit-flows artifacts download {made.id}\n"
            f"chapkit-flows report {run.id} --out {run.model}.html\n```"
        )
    deployments = f"[Deployments]({_UI}/deployments)" if _has_pages() else "Deployments"
    return (
        f"Trained model `{made.id}`. Predict with it:\n\n"
        f"- here: {deployments} → the deployment of the flow `{run.model}-predict` → **Run** → **Custom run**; "
        "paste the id above as `model`\n"
        "- or on the command line:\n\n"
        f"```\nchapkit-flows predict {made.id} \\\n  --historic historic.csv --future future.csv\n```"
    )


def _model_parts(run: RunFact, made: Edge) -> list[str]:
    """Of a trained model: for which places, if it is trained for each, and what its author says about it."""
    facts, parts = made.artifact.metadata, []
    if made.role == "model" and "trained_places" in facts:
        places, reused = len(facts["trained_places"]), int(run.metrics.get("reused_places", 0))
        told = f"{places - reused} trained in this run, {reused} unchanged since they were trained before"
        parts.append(f"One model for each of {places} places: {told}.")
    if made.role == "model" and facts.get("about"):
        rows = [[plain(str(name)), plain(one_line(str(value)))] for name, value in facts["about"].items()]
        parts += ["### About the model", table(("What", "Which"), rows)]
    return parts


def _forecast_parts(forecast: Forecast) -> list[str]:
    """The picture, and the numbers behind it: folded away if they are many."""
    shown = forecast.numbers["location"].nunique()
    which = f" of the first {shown} of {forecast.places} places" if shown < forecast.places else ""
    what = "what was observed and the forecast" if forecast.is_point else "median, 50 and 90 % intervals"
    encoded = base64.b64encode(forecast.picture).decode()
    head, rows = _numbers(forecast)
    return [
        f"![Forecast{which} by place: {what}](data:image/png;base64,{encoded})",
        *([f"Shown: {which.removeprefix(' of ')}. {_ALL_PLACES}"] if which else []),
        folded(f"Forecast{which} in numbers: {len(rows)} rows", html_table(head, rows))
        if len(rows) > _MOST_ROWS
        else table(head, [[plain(cell) for cell in row] for row in rows]),
    ]


def _numbers(forecast: Forecast) -> tuple[list[str], list[list[str]]]:
    rows = []
    for row in forecast.numbers.itertuples():
        interval = [] if forecast.is_point else [f"{digits(row.q05)} to {digits(row.q95)}"]
        rows.append([str(row.location), str(row.time_period), digits(row.median), *interval])
    return ["Place", "Period", *(["Forecast"] if forecast.is_point else ["Median", "90 % interval"])], rows


def facts_table(run: RunFact, parent: RunFact | None) -> str:
    """What a run was made from, as a table."""
    rows = [("Run", f"`{run.id}`" + (_run_link(run) or " (this page)"))]
    if run.config is not None:
        values = [code(f"{key} = {_value(key, value)}") for key, value in run.config.content.items()]
        head = f"{_config_name(run.config)}, version `{short(run.config.digest)}`"
        rows.append(("Config", "<br>".join([head, *values])))
    rows += [(_role(edge), _artifact_cell(edge, run)) for edge in run.inputs]
    if parent is not None:
        rows.append(("Trained by", f"`{parent.id}`" + _run_link(parent)))
        rows += [(_role(edge), _artifact_cell(edge, parent)) for edge in parent.inputs]
    if run.code is not None:
        rows.append(("Code", _code_text(run.code)))
    return table(("What", "Which"), rows)


def _profile_parts(run: RunFact) -> list[str]:
    """For each table that the run read: how much is missing in each column, and between which values it lies."""
    parts = []
    for edge in run.inputs:
        facts = edge.artifact.metadata
        if "missing" not in facts:
            continue
        title = f"{_role(edge)}: {profile_line(facts)}"
        rows = [[str(column), *_column_cells(column, facts)] for column in facts["columns"]]
        parts.append(folded(html.escape(title), html_table(("Column", "Missing", "Smallest", "Largest"), rows)))
    return ["### Data", *parts] if parts else []


def _column_cells(column: str, profile: Mapping[str, Any]) -> list[str]:
    low, high = profile.get("ranges", {}).get(column, (None, None))
    missing = profile["missing"][column]
    return [
        f"{missing:.1%}" if missing else "none",
        "" if low is None else digits(low),
        "" if high is None else digits(high),
    ]


def _artifact_cell(edge: Edge, run: RunFact) -> str:
    facts = edge.artifact.metadata
    parts = [f"`{edge.artifact.id}`"]
    # Equal bytes are one dataset: it knows where it came from first, the run where it read them.
    uri = run.parameters.get(edge.role) if edge.role != "model" else None
    if uri or "uri" in facts:
        parts.append(code(str(uri or facts["uri"])))
    if facts.get("rows"):
        parts.append(profile_line(facts))
    return "<br>".join([*parts, f"`{edge.artifact.digest}`"])


def _code_text(code: CodeVersion) -> str:
    if code.git_commit is not None:
        return f"commit `{code.git_commit[:12]}`" + (", with local changes" if code.dirty else "")
    return (
        f"not in a git repository; file `{short(code.source_digest)}`" if code.source_digest else "interactive session"
    )


def _value(key: str, value: Any) -> Any:
    """What a config holds; of its rules, which would fill the page, the codes."""
    return ", ".join(str(rule["code"]) for rule in value) if key == "validation_rules" else value


def _packages(run: RunFact) -> str:
    if run.code is None:
        return ""
    names = ", ".join(f"{name} {version}" for name, version in run.code.packages.items())
    return folded(f"Python {run.code.python}, {len(run.code.packages)} packages", html.escape(names))


def _run_link(run: RunFact) -> str:
    """A link to the run's page on the Prefect server, if it has one."""
    if not run.flow_run_id or not _has_pages():
        return ""
    return f" · [{plain(run.flow_run_name or 'run')}]({_UI}/runs/flow-run/{run.flow_run_id})"


def _has_pages() -> bool:
    """Whether there is a server with pages that lasts longer than the run."""
    return urlparse(PREFECT_UI_URL.value() or "").scheme.startswith("http")


def _lineage_list(run: RunFact, made: Edge, parent: RunFact | None) -> list[str]:
    """What made what, from what was made back to the origins, as a nested list."""
    lines = [f"- {_made_line(made, run)}", f"  - made by the run {_run_text(run)}"]
    for edge in sorted(run.inputs, key=lambda edge: edge.role != "model"):
        lines.append(f"    - from {_made_line(edge, run)}")
        if parent is not None and edge.role == "model":
            lines.append(f"      - made by the run {_run_text(parent)}")
            lines += [f"        - from {_made_line(past, parent)}" for past in parent.inputs]
            lines += [f"        - with {text}" for text in _version_lines(parent)]
    lines += [f"    - with {text}" for text in _version_lines(run)]
    others = [_made_line(edge, run) for edge in run.outputs if edge is not made]
    return lines + [f"  - together with {text}" for text in others]


def _run_text(run: RunFact) -> str:
    return f"**{run.flow}** `{run.id}`" + _run_link(run)


def _made_line(edge: Edge, run: RunFact) -> str:
    return f"**{_role(edge)}** {code(run.name_of(edge) or edge.artifact.id)} · `{short(edge.artifact.digest)}`"


def _config_name(config: ConfigRef) -> str:
    return code(config.name) if config.name else "not saved"


def _version_lines(run: RunFact) -> list[str]:
    lines = []
    if run.config is not None:
        lines.append(f"**Config** {_config_name(run.config)} · `{short(run.config.digest)}`")
    if run.code is not None:
        lines.append(f"**Code** {_code_text(run.code)}")
    return lines


def _diagram(run: RunFact, parent: RunFact | None) -> str:
    """The neighbourhood of a run as a mermaid flow chart. Short labels: the drawing shrinks to the page's width."""
    lines = ["flowchart LR", f'  run("{run.flow}"):::run']
    if run.config is not None:
        name = _text(run.config.name or short(run.config.digest))
        lines.append(f'  config{{{{"Config<br>{name}"}}}} --> run')
    if run.code is not None:
        lines.append(f'  code{{{{"Code<br>{(run.code.git_commit or short(run.code.source_digest))[:12]}"}}}} --> run')
    for number, edge in enumerate(run.inputs):
        lines.append(f"  in{number}{_box(edge, run)} --> run")
        if parent is not None and edge.role == "model":
            lines.append(f'  parent("{parent.flow}"):::run --> in{number}')
            lines += [f"  past{index}{_box(past, parent)} --> parent" for index, past in enumerate(parent.inputs)]
    lines += [f"  run --> out{number}{_box(edge, run)}" for number, edge in enumerate(run.outputs)]
    # The second UI draws on dark blue, where the default arrows are hard to see.
    lines += ["  classDef run fill:#dbeafe,stroke:#2563eb,color:#1e293b"]
    return "\n".join([*lines, "  linkStyle default stroke:#94a3b8,stroke-width:2px"])


def _box(edge: Edge, run: RunFact) -> str:
    return f'["{_role(edge)}<br>{_text(run.name_of(edge) or short(edge.artifact.digest))}"]'


def _role(edge: Edge) -> str:
    return _ROLES.get(edge.role, edge.role)


def _text(value: str) -> str:
    """Free text for a mermaid label, whose quotes and brackets have a meaning there."""
    return "".join(letter if letter.isalnum() or letter in " ._-:/" else "_" for letter in value)[:60]


def short(digest: str | None) -> str:
    """The first digits of a digest, for people."""
    return (digest or "").removeprefix("sha256:")[:12]


def profile_line(profile: Mapping[str, Any]) -> str:
    """A panel in a few words."""
    return f"{profile['rows']} rows, {profile['places']} places, {profile['first']} to {profile['last']}"
