"""What a run shows in the Prefect UI."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.settings import PREFECT_UI_URL

from chapkit_flows.lineage.facts import Edge, RunFact
from chapkit_flows.refs import ArtifactRef, Diagnostic

_ROLES = {
    "data": "Training data",
    "historic": "Historic data",
    "future": "Future data",
    "geo": "Polygons",
    "model": "Trained model",
    "prediction": "Prediction",
    "workspace": "Prediction workspace",
    "plot": "Plot",
}


async def publish_summary(run: RunFact, *, parent: RunFact | None = None, picture: bytes | None = None) -> None:
    """Publish a markdown artifact: what was made from what, with the lineage as a diagram.

    Args:
        parent: The training run behind a prediction.
        picture: A PNG of the forecast.
    """
    await acreate_markdown_artifact(
        markdown=summarise(run, parent=parent, picture=picture),
        key=artifact_key(run.model, run.flow),
        description=f"What this {run.flow} run made, and from what",
    )


async def publish_diagnostics(model: str, diagnostics: Sequence[Diagnostic]) -> None:
    """Publish the findings of validation as a table artifact."""
    await acreate_table_artifact(
        table=diagnostic_rows(diagnostics), key=artifact_key(model, "diagnostics"), description="What validation found"
    )


def diagnostic_rows(diagnostics: Sequence[Diagnostic]) -> list[dict[str, str]]:
    """Findings as the rows of a table."""
    return [
        {"severity": found.severity, "code": found.code, "field": found.field or "", "message": found.message}
        for found in diagnostics
    ]


def artifact_key(model: str, what: str) -> str:
    """A key as Prefect wants it: lower-case letters, digits and dashes."""
    return f"{model}-{what}".replace("_", "-")


def summarise(run: RunFact, *, parent: RunFact | None = None, picture: bytes | None = None) -> str:
    """The markdown of a run's summary."""
    made = next(edge.artifact for edge in run.outputs if edge.role in ("model", "prediction"))
    parts = [f"## {run.model}: {'trained' if run.flow == 'train' else 'predicted'}", _next_step(run, made)]
    if picture is not None:
        encoded = base64.b64encode(picture).decode()
        parts.append(f"![Forecast by place: median, 50 and 90 % intervals](data:image/png;base64,{encoded})")
    parts += ["### Made from", _facts_table(run, parent), "### Lineage", f"```mermaid\n{_diagram(run, parent)}\n```"]
    parts.append(_packages(run))
    return "\n\n".join(parts)


def _next_step(run: RunFact, made: ArtifactRef) -> str:
    if run.flow == "train":
        return (
            f"Trained model `{made.id}`. Predict with it:\n\n"
            f"```\nchapkit-flows predict {made.id} --historic historic.csv --future future.csv\n```"
        )
    return f"Prediction `{made.id}`. Download it:\n\n```\nchapkit-flows artifacts download {made.id}\n```"


def _facts_table(run: RunFact, parent: RunFact | None) -> str:
    rows = [("Run", f"`{run.id}`" + _run_link(run, " (this page)"))]
    if run.config is not None:
        values = [f"{key} = {value}" for key, value in run.config.content.items()]
        head = f"{run.config.name or 'not saved'}, version `{short(run.config.digest)}`"
        rows.append(("Config", "<br>".join([head, *values])))
    rows += [(_ROLES.get(edge.role, edge.role), _artifact_cell(edge, run)) for edge in run.inputs]
    if parent is not None:
        rows.append(("Trained by", f"`{parent.id}`" + _run_link(parent)))
        rows += [(_ROLES.get(edge.role, edge.role), _artifact_cell(edge, parent)) for edge in parent.inputs]
    if run.code is not None:
        rows.append(("Code", _code_cell(run.code.git_commit, run.code.dirty, run.code.source_digest)))
    lines = [f"| {name} | {_cell(text)} |" for name, text in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _artifact_cell(edge: Edge, run: RunFact) -> str:
    facts = edge.artifact.metadata
    parts = [f"`{edge.artifact.id}`"]
    # Equal bytes are one dataset: it knows where it came from first, the run where it read them.
    uri = run.parameters.get(edge.role) if edge.role != "model" else None
    if uri or "uri" in facts:
        parts.append(f"`{uri or facts['uri']}`")
    if facts.get("rows"):
        parts.append(f"{facts['rows']} rows, {facts['places']} places, {facts['first']} to {facts['last']}")
    return "<br>".join([*parts, f"`{edge.artifact.digest}`"])


def _code_cell(commit: str | None, dirty: bool, source: str | None) -> str:
    if commit is None:
        return f"not in a git repository; file `{short(source)}`" if source else "interactive session"
    return f"commit `{commit[:12]}`" + (", with local changes" if dirty else "")


def _packages(run: RunFact) -> str:
    if run.code is None:
        return ""
    names = ", ".join(f"{name} {version}" for name, version in run.code.packages.items())
    return f"<details><summary>Python {run.code.python}, {len(run.code.packages)} packages</summary>{names}</details>"


def _run_link(run: RunFact, otherwise: str = "") -> str:
    """A link to the run's page on the Prefect server, if it has one."""
    ui = PREFECT_UI_URL.value()
    if not ui or not run.flow_run_id or not urlparse(ui).scheme.startswith("http"):
        return otherwise
    return f" · [{run.flow_run_name or 'run'}]({ui}/runs/flow-run/{run.flow_run_id})"


def _diagram(run: RunFact, parent: RunFact | None) -> str:
    """The neighbourhood of a run as a mermaid flow chart."""
    lines = ["flowchart LR", f'  run("{run.flow}<br>{run.id}"):::run']
    if run.config is not None:
        lines += [f'  config{{{{"config {_text(run.config.name or "")}<br>{short(run.config.digest)}"}}}} --> run']
    if run.code is not None:
        commit = (run.code.git_commit or run.code.source_digest or "")[:12]
        lines += [f'  code{{{{"code<br>{_text(commit)}"}}}} --> run']
    for number, edge in enumerate(run.inputs):
        lines.append(f"  in{number}{_box(edge)} --> run")
        if parent is not None and edge.role == "model":
            lines += _parent_lines(parent, f"in{number}")
    lines += [f"  run --> out{number}{_box(edge)}" for number, edge in enumerate(run.outputs)]
    return "\n".join([*lines, "  classDef run fill:#dbeafe,stroke:#2563eb"])


def _parent_lines(parent: RunFact, model: str) -> list[str]:
    lines = [f'  parent("{parent.flow}<br>{parent.id}"):::run --> {model}']
    return lines + [f"  past{number}{_box(edge)} --> parent" for number, edge in enumerate(parent.inputs)]


def _box(edge: Edge) -> str:
    name = str(edge.artifact.metadata.get("name", "")) or edge.artifact.id
    return f'["{_ROLES.get(edge.role, edge.role)}<br>{_text(name)}<br>{short(edge.artifact.digest)}"]'


def _text(value: str) -> str:
    """Free text for a mermaid label, whose quotes and brackets have a meaning there."""
    return "".join(letter if letter.isalnum() or letter in " ._-:/" else "_" for letter in value)[:60]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def short(digest: str | None) -> str:
    """The first digits of a digest, for people."""
    return (digest or "").removeprefix("sha256:")[:12]


def profile_line(profile: Mapping[str, Any]) -> str:
    """A panel in a few words."""
    return f"{profile['rows']} rows, {profile['places']} places, {profile['first']} to {profile['last']}"
