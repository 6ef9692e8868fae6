"""What the commands take that say how good models are."""

from __future__ import annotations

from pathlib import Path

from chapkit_flows.cli.parser.options import MODEL_HELP, URI_HELP, Commands, add_command, add_config, add_geo


def add_evaluating(commands: Commands) -> None:
    """`backtest` and `score`."""
    backtest = add_command(commands, "backtest", "evaluations:backtest", "forecast from past origins, and score that")
    backtest.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    backtest.add_argument("--data", metavar="URI", required=True, help=f"data with the truth: {URI_HELP}")
    add_geo(backtest)
    add_config(backtest)
    backtest.add_argument("--periods", metavar="N", type=int, help="periods ahead; default: the config's")
    backtest.add_argument("--splits", metavar="N", type=int, default=4, help="how many origins; default: %(default)s")
    backtest.add_argument("--stride", metavar="N", type=int, default=1, help="periods between origins; default: 1")
    for option, choices, text in (
        ("--strategy", ("refit", "train_once", "update"), "what each origin trains"),
        ("--covariates", ("climatology", "observed", "persistence"), "what stands for the weather ahead"),
        ("--window", ("expanding", "sliding"), "of the periods to learn from"),
    ):
        backtest.add_argument(option, choices=choices, default=choices[0], help=f"{text}; default: %(default)s")
    backtest.add_argument("--window-length", metavar="N", type=int, help="periods of a sliding window")
    backtest.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="do not score the baselines on the same folds"
    )
    backtest.add_argument("--no-pictures", dest="pictures", action="store_false", help="draw no pictures")
    backtest.add_argument(
        "--task-runner", choices=("threads", "processes", "dask", "ray"), help="where folds run; default: the setting"
    )
    backtest.add_argument("--workers", metavar="N", type=int, help="how many folds at once; default: the setting")
    backtest.add_argument(
        "--cluster", metavar="ADDRESS", help="of a running cluster: tcp://HOST:8786 (dask), ray://HOST:10001 (ray)"
    )

    score = add_command(commands, "score", "evaluations:score", "score predictions with the truth that has come since")
    score.add_argument("id", metavar="ID", nargs="?", help="a prediction; default: all of --model")
    score.add_argument("--truth", metavar="URI", required=True, help=f"data with the truth: {URI_HELP}")
    score.add_argument("--model", metavar="MODEL", help="the name of a model that was trained, or where it is now")
    score.add_argument(
        "--gate", metavar="FILE", type=Path, help="rules as YAML that a challenger must pass by its live forecasts"
    )
    score.add_argument(
        "--promote", action="store_true", help="make the best challenger that passes the champion; else it is proposed"
    )
