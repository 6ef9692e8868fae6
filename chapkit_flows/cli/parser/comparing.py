"""What the commands take that put results side by side."""

from __future__ import annotations

from pathlib import Path

from chapkit_flows.cli.parser.options import Commands, add_command


def add_comparing(commands: Commands) -> None:
    """Add the commands compare, why and report."""
    what = "the id of a run or of what it made, or a model version such as rain@3 or rain@champion"
    compare = add_command(
        commands, "compare", "comparing:compare_", "show what differs, side by side; exit code 1 if it does"
    )
    compare.add_argument(
        "things", metavar="THING", nargs="+", help=f"{what}; experiment:NAME for its trials; or a config"
    )
    compare.add_argument("--all", action="store_true", help="show what is the same too")
    compare.add_argument("--md", action="store_true", help="as markdown tables, for a pull request")
    compare.add_argument(
        "--metric", metavar="NAME", default="crps", help="by which backtests are compared (default: %(default)s)"
    )
    why = add_command(commands, "why", "comparing:why", "say why two results differ; exit code 1 if they do")
    for side in ("a", "b"):
        why.add_argument(side, metavar=side.upper(), help=what)
    report = add_command(
        commands, "report", "reporting:report", "write a page about a run or a model version, for anybody"
    )
    report.add_argument("id", metavar="THING", help=what)
    report.add_argument("--out", metavar="FILE", type=Path, required=True, help="an .html file that needs no internet")
    report.add_argument("--force", action="store_true", help="replace a file that is there")
