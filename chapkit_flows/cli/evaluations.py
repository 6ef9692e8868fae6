"""The commands that say how good models are."""

from __future__ import annotations

import argparse
from typing import Any

from chapkit_flows.cli.changes import read_config
from chapkit_flows.cli.output import print_facts, print_json, print_line, print_table, show_error
from chapkit_flows.cli.runs import find_model
from chapkit_flows.cli.server import recorded_run, run_here, watched
from chapkit_flows.errors import ChapkitFlowsError
from chapkit_flows.evaluation.metrics import METRICS

_SHOWN = ("crps", "crps_log1p", "wis", "mae", "rmse", "coverage_50", "coverage_90", "bias")


def backtest(options: argparse.Namespace) -> int:
    """Backtest a model and print its scores; 1 if a fold failed."""
    model = find_model(options.model)
    begun: list[str] = []
    names = ("periods", "splits", "stride", "strategy", "covariates", "window", "window_length")

    async def work() -> Any:
        config = await read_config(model, options)
        plan = {name: getattr(options, name) for name in names}
        flow: Any = watched(model.backtest, begun)
        return await flow(config, options.data, options.geo, plan)

    try:
        result = run_here(work(), options)
    except ChapkitFlowsError as error:
        return show_error(error, options, recorded_run(begun))
    if options.json:
        print_json(result.to_dict())
    else:
        titles = {metric.name: f"{metric.title} ({metric.unit})" for metric in METRICS}
        rows = [(titles[name], f"{result.metrics[name]:.4g}") for name in _SHOWN if name in result.metrics]
        print_table(("metric", "mean"), rows)
        print_line("")
        folds = result.folds
        told = f"{folds['done']} done, {folds['reused']} of them before, {folds['failed']} failed"
        print_facts([("Folds", told), ("Scores", result.artifact_id), ("Run", result.run_id)])
        print_line(f"\nLook at each row:\n  chapkit-flows artifacts download {result.artifact_id}")
    return 1 if result.folds["failed"] else 0
