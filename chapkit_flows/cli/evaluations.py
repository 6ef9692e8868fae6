"""The commands that say how good models are."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from chapkit_flows.cli.changes import read_config
from chapkit_flows.cli.output import print_facts, print_json, print_line, print_table, show_error
from chapkit_flows.cli.runs import find_model
from chapkit_flows.cli.server import recorded_run, run_here, watched
from chapkit_flows.errors import ChapkitFlowsError, EvaluationError, ModelNotFound
from chapkit_flows.evaluation.metrics import METRICS
from chapkit_flows.evaluation.vintages import describe_plan, known_table, optimism_table
from chapkit_flows.flows.model import Model
from chapkit_flows.flows.skill import SKILL
from chapkit_flows.lineage.query import latest_training, producer
from chapkit_flows.resources import open_facts

_SHOWN = ("crps", "crps_log1p", "wis", "mae", "rmse", "coverage_50", "coverage_90", "bias")


def backtest(options: argparse.Namespace) -> int:
    """Backtest a model and print its scores; 1 if a fold failed."""
    model = find_model(options.model)
    begun: list[str] = []
    vintages = _vintage_plan(options)
    runner = model.task_runner(options.task_runner, workers=options.workers, address=options.cluster)

    async def work() -> Any:
        config = await read_config(model, options)
        plan = read_plan(options) | {"pictures": options.pictures}
        flow: Any = watched(model.backtest.with_options(task_runner=runner), begun)
        return await flow(config, options.data, options.geo, plan, vintages)

    try:
        result = run_here(work(), options)
    except ChapkitFlowsError as error:
        return show_error(error, options, recorded_run(begun))
    if options.json:
        print_json(result.to_dict())
    else:
        _print_means(result.metrics)
        if result.vintages is not None:
            _print_vintages(result.vintages)
        skills = [(name, value) for name, value in result.metrics.items() if name.startswith(SKILL)]
        if skills:
            print_line("")
            print_table(
                ("CRPS skill against", "more than 0 is better"),
                [(name.removeprefix(SKILL).replace("_", " "), f"{value:+.1%}") for name, value in skills],
            )
        print_line("")
        folds = result.folds
        told = f"{folds['done']} done, {folds['reused']} of them before, {folds['failed']} failed"
        print_facts([("Folds", told), ("Scores", result.artifact_id), ("Run", result.run_id)])
        print_line(f"\nLook at each row:\n  chapkit-flows artifacts download {result.artifact_id}")
    return 1 if result.folds["failed"] else 0


def read_plan(options: argparse.Namespace) -> dict[str, Any]:
    """From which origins to forecast, as the flows take it."""
    names = ("periods", "splits", "stride", "strategy", "covariates", "window", "window_length")
    plan = {name: getattr(options, name) for name in names}
    return plan if options.baselines else plan | {"baselines": ()}


def score(options: argparse.Namespace) -> int:
    """Score predictions and print how good they were; 1 if one cannot be scored."""
    model = _find_scored(options)
    begun: list[str] = []

    async def work() -> Any:
        flow: Any = watched(model.score, begun)
        return await flow(options.truth, options.id)

    try:
        result = run_here(work(), options)
    except ChapkitFlowsError as error:
        return show_error(error, options, recorded_run(begun))
    counts = result.predictions
    if options.json:
        print_json(result.to_dict())
        return 1 if counts["failed"] else 0
    if result.artifact_id is not None:
        _print_means(result.metrics)
    told = f"{counts['scored']} scored, {counts['waiting']} without truth yet, {counts['failed']} cannot be scored"
    scores = [("Scores", result.artifact_id)] if result.artifact_id else []
    print_facts([("Predictions", told), *scores, ("Run", result.run_id)])
    return 1 if counts["failed"] else 0


def _vintage_plan(options: argparse.Namespace) -> dict[str, Any] | None:
    """How what was known is told; None without vintages.

    Raises:
        EvaluationError: A day is given that only vintages have.
    """
    if options.vintages:
        return {"delay_days": options.delay or 0, "truth_lag_days": options.truth_lag}
    for name, value in (("--delay", options.delay), ("--truth-lag", options.truth_lag)):
        if value is not None:
            raise EvaluationError(f"{name} is about when values were known. Give it together with --vintages.")
    return None


def _print_vintages(told: Mapping[str, Any]) -> None:
    print_line(f"\n{describe_plan(told)}")
    print_table(*known_table(told["known"]))
    print_line("\nThe same folds on revised data, and how optimistic those are:")
    print_table(*optimism_table(told["optimism"]))


def _find_scored(options: argparse.Namespace) -> Model:
    """The model whose predictions are to be scored."""
    database = open_facts()
    run = None
    if options.model is not None:
        run = latest_training(database, options.model)
    elif options.id is not None:
        run = producer(database, options.id)
    else:
        raise ModelNotFound("Pass the id of a prediction, or --model NAME for all predictions of a model.")
    if run is None or run.entrypoint is None:
        if options.model is None:
            raise ModelNotFound(f"No model is recorded behind {options.id}. Say where it is: --model MODEL")
        return find_model(options.model)
    return find_model(run.entrypoint)


def _print_means(metrics: Mapping[str, float]) -> None:
    titles = {metric.name: f"{metric.title} ({metric.unit})" for metric in METRICS}
    print_table(("metric", "mean"), [(titles[name], f"{metrics[name]:.4g}") for name in _SHOWN if name in metrics])
