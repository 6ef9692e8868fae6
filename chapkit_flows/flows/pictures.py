"""The pictures of a backtest: kept as artifacts, and shown in the Prefect UI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pandas as pd

from chapkit_flows.artifacts.codecs import Saved, load
from chapkit_flows.artifacts.store import Store
from chapkit_flows.artifacts.trees import list_tree
from chapkit_flows.data.panels import Panel
from chapkit_flows.data.periods import period_start
from chapkit_flows.errors import EvaluationError
from chapkit_flows.evaluation.charts import Spec, forecast_spec, render_png
from chapkit_flows.evaluation.comparison import compare
from chapkit_flows.evaluation.score_charts import (
    calibration_spec,
    comparison_spec,
    composed_spec,
    horizon_spec,
    map_spec,
)
from chapkit_flows.flows import steps
from chapkit_flows.flows.folds import digest_of_rows, find_saved, once, work_name
from chapkit_flows.flows.session import RunSession
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.models.runner import Geo
from chapkit_flows.refs import ArtifactRef, new_id

PICTURES: Mapping[str, str] = {
    "plot_forecasts": "Forecasts from the last origin, and what was observed",
    "plot_scores": "Skill against the baselines, scores by periods ahead, and calibration",
    "plot_map": "Scores by place",
}
"""What each picture shows, by the role that it has in the run."""

_SHOWN: Mapping[str, tuple[str, ...]] = {
    "plot_forecasts": ("forecasts",),
    "plot_scores": ("scores", "baseline_scores"),
    "plot_map": ("scores", "geo"),
}
_SCALE = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """What there is to show of a backtest.

    Attributes:
        scores: A row per fold, place and period.
        baselines: The same of each baseline, by name.
        pictures: PNGs, by role.
    """

    scores: pd.DataFrame
    baselines: dict[str, pd.DataFrame] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)


@steps.step("draw the pictures")
async def draw_pictures(session: RunSession, data: Panel, polygons: Geo | None) -> None:
    """Draw what the scores and the last forecasts look like, and keep that in the store."""
    await asyncio.to_thread(_draw_all, session, data, polygons)


def read_shown(store: Store, run: RunFact) -> Shown:
    """What there is to show of a backtest that is recorded."""
    baselines = run.find_output("baseline_scores")
    table = None if baselines is None else load(store, baselines, allow_pickle=False)
    pictures = {}
    for role in PICTURES:
        artifact = run.find_output(role)
        if artifact is not None:
            with store.open(artifact.digest) as file:
                pictures[role] = file.read()
    return Shown(
        scores=load(store, run.output("scores"), allow_pickle=False),
        baselines={} if table is None else split_by_model(table),
        pictures=pictures,
    )


def split_by_model(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The scores of each model in a table of several."""
    return {str(name): rows.drop(columns="model").reset_index(drop=True) for name, rows in table.groupby("model")}


def _draw_all(session: RunSession, data: Panel, polygons: Geo | None) -> None:
    store = session.resources.store
    made = {edge.role: edge.artifact for edge in session.outputs}
    scores = load(store, made["scores"], allow_pickle=False)
    table = load(store, made["baseline_scores"], allow_pickle=False) if "baseline_scores" in made else None
    specs: dict[str, Callable[[], Spec | None]] = {
        "plot_forecasts": lambda: _fan(store, made["forecasts"], data, session.model.target),
        "plot_scores": lambda: _scores_spec(session.model.name, scores, {} if table is None else split_by_model(table)),
        "plot_map": lambda: None if polygons is None else _map(scores, polygons.model_dump(mode="json")),
    }
    digests = {edge.role: edge.artifact.digest for edge in (*session.inputs, *session.outputs)}
    truth = digest_of_rows(data.frame)
    for role, make in specs.items():
        shown = {other: digests.get(other) for other in _SHOWN[role]}
        shown |= {"model": session.model.name, "target": session.model.target, "scale": str(_SCALE)}
        shown["truth"] = truth
        picture = _draw_once(store, work_name(role, shown), make)
        if picture is not None:
            session.produced(role, _artifact_of_picture(role, picture))


def _draw_once(store: Store, name: str, make: Callable[[], Spec | None]) -> Saved | None:
    """A picture of what was drawn before is taken from the store: drawing takes a second or two."""
    if (known := find_saved(store, name)) is not None:
        return known
    spec = make()
    if spec is None:
        return None
    stored = store.put(BytesIO(render_png(spec, scale=_SCALE)))
    saved = Saved(digest=stored.digest, size=stored.size, media_type="image/png", codec="")
    return once(store, name, lambda: (saved, 0.0))[0]


def _fan(store: Store, forecasts: ArtifactRef, data: Panel, target: str) -> Spec:
    last = max(list_tree(store, forecasts.digest), key=lambda entry: entry.path)
    artifact = ArtifactRef(
        id=new_id(), kind="prediction", digest=last.digest, size=last.size,
        media_type="application/vnd.apache.parquet", codec="parquet",
    )  # fmt: skip
    predictions = load(store, artifact, allow_pickle=False)
    return forecast_spec(data.frame, predictions, target=target, start_of=period_start)


def _scores_spec(model: str, scores: pd.DataFrame, baselines: dict[str, pd.DataFrame]) -> Spec:
    """All that scores show in one picture: drawing three would take three times as long."""
    together = {model: scores, **baselines}
    parts = [horizon_spec(together)]
    if baselines:
        parts += _drawable(lambda: comparison_spec(compare(together, "crps", reference=next(iter(baselines)))))
    return composed_spec(parts + _drawable(lambda: calibration_spec({model: scores})))


def _map(scores: pd.DataFrame, polygons: Mapping[str, Any]) -> Spec | None:
    return next(iter(_drawable(lambda: map_spec(scores, polygons))), None)


def _drawable(make: Callable[[], Spec]) -> list[Spec]:
    """A picture, unless there is nothing to draw: point forecasts have no calibration, some polygons no scores."""
    try:
        return [make()]
    except EvaluationError:
        return []


def _artifact_of_picture(role: str, picture: Saved) -> ArtifactRef:
    return ArtifactRef(
        id=new_id(), kind="plot", digest=picture.digest, size=picture.size, media_type=picture.media_type,
        metadata={"name": f"{role.removeprefix('plot_')}.png"},
    )  # fmt: skip
