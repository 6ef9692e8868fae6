"""What the commands take that say how good results are, and why they differ."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_plan(backtest: argparse.ArgumentParser) -> None:
    """Add the options of the plan of a backtest."""
    backtest.add_argument("--periods", metavar="N", type=int, help="periods ahead; default: the config's")
    backtest.add_argument("--splits", metavar="N", type=int, default=4, help="how many origins; default: %(default)s")
    backtest.add_argument("--stride", metavar="N", type=int, default=1, help="periods between origins; default: 1")
    backtest.add_argument(
        "--strategy", choices=("refit", "train_once", "update"), default="refit", help="default: %(default)s"
    )
    backtest.add_argument(
        "--covariates",
        choices=("observed", "climatology", "persistence"),
        default="climatology",
        help="what stands for the weather ahead (default: %(default)s)",
    )
    backtest.add_argument(
        "--window", choices=("expanding", "sliding"), default="expanding", help="default: %(default)s"
    )
    backtest.add_argument("--window-length", metavar="N", type=int, help="periods of a sliding window")
    backtest.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="do not score the baselines on the same folds"
    )
    backtest.add_argument("--no-pictures", dest="pictures", action="store_false", help="draw no pictures")


def add_comparing(add: Callable[..., argparse.ArgumentParser], commands: Any) -> None:
    """Add the commands compare, why and report.

    Args:
        add: Adds a command with the options that all have.
        commands: Where to.
    """
    what = "the id of a run or of what it made, or a model version such as rain@3 or rain@champion"
    compare = add(commands, "compare", "comparing:compare_", "show what differs, side by side; exit code 1 if it does")
    compare.add_argument("things", metavar="THING", nargs="+", help=f"{what}; or a config, as `configs diff` takes it")
    compare.add_argument("--all", action="store_true", help="show what is the same too")
    compare.add_argument("--md", action="store_true", help="as markdown tables, for a pull request")
    compare.add_argument(
        "--metric", metavar="NAME", default="crps", help="by which backtests are compared (default: %(default)s)"
    )
    why = add(commands, "why", "comparing:why", "say why two results differ; exit code 1 if they do")
    for side in ("a", "b"):
        why.add_argument(side, metavar=side.upper(), help=what)
    report = add(commands, "report", "reporting:report", "write a page about a run or a model version, for anybody")
    report.add_argument("id", metavar="THING", help=what)
    report.add_argument("--out", metavar="FILE", type=Path, required=True, help="an .html file that needs no internet")
    report.add_argument("--force", action="store_true", help="replace a file that is there")
