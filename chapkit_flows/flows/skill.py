"""How much better than the baselines that ship: the same folds, forecast by them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import pandas as pd
from prefect.logging import get_run_logger

from chapkit_flows.artifacts.codecs import Saved, load, save
from chapkit_flows.artifacts.store import Store
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import with_horizon
from chapkit_flows.data.panels import Panel
from chapkit_flows.data.periods import season_of
from chapkit_flows.errors import ChapkitFlowsError, EvaluationError
from chapkit_flows.evaluation.comparison import Comparison, compare
from chapkit_flows.evaluation.metrics import METRICS
from chapkit_flows.evaluation.scores import learn_yardstick, score_split
from chapkit_flows.evaluation.splits import Split
from chapkit_flows.flows import steps
from chapkit_flows.flows.folds import FoldOrder, FoldSources, do_fold, identify, once, work_name
from chapkit_flows.flows.session import RunSession
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.discovery import load_model
from chapkit_flows.refs import ArtifactRef, new_id

Baseline = Literal["persistence", "seasonal_naive", "climatology"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
SKILL = "skill_"
"""How the metrics of a run are called that tell its CRPS skill against a baseline."""


@steps.step("score the baselines")
async def score_baselines(
    session: RunSession,
    horizon: int,
    cut: tuple[Panel, Sequence[Split]],
    names: Sequence[Baseline],
    sources: FoldSources | None = None,
) -> None:
    """Score baselines on the folds of the run, keep their scores, and tell the skill against each as a metric.

    A baseline that cannot be made from the data is left out, with a warning.
    """
    wanted = [name for name in names if name != session.model.name]
    found = await asyncio.to_thread(_score_all, session, horizon, cut, wanted, sources)
    if found:
        table = pd.concat([frame.assign(model=name) for name, frame in found.items()], ignore_index=True)
        saved = await asyncio.to_thread(save, session.resources.store, table)
        facts = {"name": "scores of baselines", "model": session.model.name}
        session.produced("baseline_scores", replace(_artifact(saved), metadata=facts))
        own = load(session.resources.store, _made(session, "scores"), allow_pickle=False)
        for name, one in skills_of(own, found).items():
            (row,) = one.rows
            if row.skill is not None:
                session.metrics[f"{SKILL}{name}"] = row.skill


def skills_of(scores: pd.DataFrame, baselines: dict[str, pd.DataFrame], metric: str = "crps") -> dict[str, Comparison]:
    """By baseline: the model beside it, without those that have no fold in common with it."""
    found = {}
    for name, frame in baselines.items():
        try:
            found[name] = compare({"model": scores, name: frame}, metric, reference=name)
        except EvaluationError:
            continue  # each fold that the model could do has no truth there, or the other way round
    return found


def _made(session: RunSession, role: str) -> ArtifactRef:
    return next(edge.artifact for edge in session.outputs if edge.role == role)


def _score_all(
    session: RunSession,
    horizon: int,
    cut: tuple[Panel, Sequence[Split]],
    names: Sequence[str],
    sources: FoldSources | None,
) -> dict[str, pd.DataFrame]:
    found = {}
    log = get_run_logger()
    for name in names:
        model = load_model(f"chapkit_flows.baselines:{name}")
        if model.target != session.model.target:
            log.warning(
                "The baselines forecast %s only, not %s: there is no skill.", model.target, session.model.target
            )
            break
        try:
            found[name] = _score(session, model, horizon, cut, sources)
        except ChapkitFlowsError as error:
            log.warning("The baseline %s is left out: %s", name, error)
    return found


def _score(
    session: RunSession,
    model: ModelContract,
    horizon: int,
    cut: tuple[Panel, Sequence[Split]],
    sources: FoldSources | None,
) -> pd.DataFrame:
    """The scores of one baseline; a rerun on the same folds reads them."""
    panel, splits = cut
    store = session.resources.store
    data = next(edge.artifact for edge in session.inputs if edge.role == "data")
    assert issubclass(model.config, ModelConfig)
    config = with_horizon(model.config(), horizon)
    orders = [
        FoldOrder(
            model=model,
            config=config,
            data=data,
            geo=None,
            identity=identify(model, config),
            split=split,
            learn=split.train_periods,
            covariates="climatology",  # baselines need none
        )
        for split in splits
    ]
    metrics = [metric.name for metric in METRICS]
    content: dict[str, Any] = {"metrics": metrics}
    if sources is not None:
        orders = [sources.of(order) for order in orders]
        content["truth"] = sources.truth
    content["folds"] = [order.key("forecast") for order in orders]

    def work() -> tuple[Saved, float]:
        frames = [_score_fold(store, order, panel.frame, model.target) for order in orders]
        return save(store, pd.concat(frames, ignore_index=True)), 0.0

    saved = once(store, work_name("scores of a baseline", content), work)[0]
    scores: pd.DataFrame = load(store, _artifact(saved), allow_pickle=False)
    return scores


def _score_fold(store: Store, order: FoldOrder, truth: pd.DataFrame, target: str) -> pd.DataFrame:
    done = do_fold(store, order)
    predictions = load(store, _artifact(done.saved), allow_pickle=False)
    yardstick = learn_yardstick(order.split.training(truth), target=target, season_of=season_of)
    return score_split(predictions, truth, target=target, split=order.split, yardstick=yardstick)


def _artifact(saved: Saved) -> ArtifactRef:
    return ArtifactRef(
        id=new_id(), kind="metrics", digest=saved.digest, size=saved.size, media_type=saved.media_type,
        codec=saved.codec,
    )  # fmt: skip
