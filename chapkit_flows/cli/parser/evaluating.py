"""What the commands take that say how good models are."""

from __future__ import annotations

import argparse

from chapkit_flows.cli.parser.options import (
    MODEL_HELP,
    URI_HELP,
    Commands,
    add_command,
    add_config,
    add_geo,
    add_group,
)


def add_evaluating(commands: Commands) -> None:
    """`backtest`, `sweep`, `experiments` and `score`."""
    backtest = add_command(commands, "backtest", "evaluations:backtest", "forecast from past origins, and score that")
    backtest.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    backtest.add_argument("--data", metavar="URI", required=True, help=f"data with the truth: {URI_HELP}")
    add_geo(backtest)
    add_config(backtest)
    _add_plan(backtest)
    _add_vintages(backtest)
    backtest.add_argument("--no-pictures", dest="pictures", action="store_false", help="draw no pictures")

    _add_sweep(commands)
    score = add_command(commands, "score", "evaluations:score", "score predictions with the truth that has come since")
    score.add_argument("id", metavar="ID", nargs="?", help="a prediction; default: all of --model")
    score.add_argument("--truth", metavar="URI", required=True, help=f"data with the truth: {URI_HELP}")
    score.add_argument("--model", metavar="MODEL", help="the name of a model that was trained, or where it is now")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    """From which origins to forecast, how far ahead, and what may be learnt."""
    parser.add_argument("--periods", metavar="N", type=int, help="periods ahead; default: the config's")
    parser.add_argument("--splits", metavar="N", type=int, default=4, help="how many origins; default: %(default)s")
    parser.add_argument("--stride", metavar="N", type=int, default=1, help="periods between origins; default: 1")
    for option, choices, text in (
        ("--strategy", ("refit", "train_once", "update"), "what each origin trains"),
        ("--covariates", ("climatology", "observed", "persistence"), "what stands for the weather ahead"),
        ("--window", ("expanding", "sliding"), "of the periods to learn from"),
    ):
        parser.add_argument(option, choices=choices, default=choices[0], help=f"{text}; default: %(default)s")
    parser.add_argument("--window-length", metavar="N", type=int, help="periods of a sliding window")
    parser.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="do not score the baselines on the same folds"
    )
    parser.add_argument(
        "--task-runner", choices=("threads", "processes", "dask", "ray"), help="where folds run; default: the setting"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="how many folds at once; default: the setting")
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="of a running cluster: tcp://HOST:8786 (dask), ray://HOST:10001 (ray)"
    )


def _add_vintages(parser: argparse.ArgumentParser) -> None:
    """What was known at an origin."""
    parser.add_argument(
        "--vintages",
        action="store_true",
        help="use at each origin only what was known then: by the column known_at, issue or as_of of --data, else by "
        "what earlier runs have read there; tells how much better revised data look",
    )
    parser.add_argument(
        "--delay", metavar="DAYS", type=int, help="days from the end of the origin to the forecast; default: 0"
    )
    parser.add_argument(
        "--truth-lag",
        metavar="DAYS",
        type=int,
        help="score with what was known so long after the end of a period; default: with what is known now",
    )


def _add_sweep(commands: Commands) -> None:
    sweep = add_command(
        commands, "sweep", "experiments:sweep", "backtest many configs or models on the same folds, and compare them"
    )
    sweep.add_argument("models", metavar="MODEL", nargs="+", help=f"{MODEL_HELP}; the folds of all run together")
    sweep.add_argument("--data", metavar="URI", required=True, help=f"data with the truth: {URI_HELP}")
    add_geo(sweep)
    sweep.add_argument(
        "--experiment", metavar="NAME", required=True, help="under which the trials are found again, or of one to go on"
    )
    sweep.add_argument(
        "--set",
        metavar="KEY=VALUES",
        action="append",
        default=[],
        help="values to try of a config field, such as n_lags=1,2,3; with optuna also a range: alpha=0.1:10:log",
    )
    sweep.add_argument(
        "--config",
        metavar="NAME",
        action="append",
        default=[],
        help="a saved config to try, of the first model or as type/name; may be repeated; default: the defaults",
    )
    sweep.add_argument(
        "--sampler",
        choices=("grid", "optuna"),
        default="grid",
        help="try all, or what seems best; default: %(default)s",
    )
    sweep.add_argument("--trials", metavar="N", type=int, help="how many trials optuna makes; default: 20")
    sweep.add_argument("--batch", metavar="N", type=int, default=4, help="trials that optuna makes at once; default: 4")
    sweep.add_argument("--seed", metavar="N", type=int, default=0, help="of optuna; default: %(default)s")
    sweep.add_argument("--metric", metavar="NAME", default="crps", help="by which to compare; default: %(default)s")
    sweep.add_argument("--description", metavar="TEXT", default="", help="what people should know of a new experiment")
    _add_plan(sweep)
    experiments = add_group(commands, "experiments", "named groups of trials")
    add_command(experiments, "list", "experiments:list_", "list experiments, the last begun first")
    show = add_command(experiments, "show", "experiments:show", "show the trials side by side, the best first")
    show.add_argument("name", metavar="NAME", help="as `experiments list` gives it")
    show.add_argument("--metric", metavar="NAME", default="crps", help="by which to compare; default: %(default)s")
