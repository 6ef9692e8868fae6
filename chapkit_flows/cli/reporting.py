"""The command report: a page about a run or a model version."""

from __future__ import annotations

import argparse
from pathlib import Path

from chapkit_flows.artifacts.codecs import load
from chapkit_flows.cli.comparing import find_run
from chapkit_flows.cli.models import find_model_version
from chapkit_flows.cli.output import print_json, print_line, whole_path
from chapkit_flows.data.periods import period_start
from chapkit_flows.errors import DataError
from chapkit_flows.evaluation.charts import MAX_PLACES, forecast_spec, render_png
from chapkit_flows.flows.folds import read_dataset
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import list_runs
from chapkit_flows.lineage.registry import assignments, version_of
from chapkit_flows.reports.page import PageContent, write_page
from chapkit_flows.resources import Resources, open_resources

_LOOKED_THROUGH = 200  # backtests, for one of the same config
_PICTURES = {
    "plot": "Forecast",
    "plot_forecasts": "Forecasts from the last origin, and what was observed",
    "plot_scores": "Scores by periods ahead, skill and calibration",
    "plot_map": "Scores by place",
}


def report(options: argparse.Namespace) -> int:
    """Write the page."""
    target: Path = options.out
    if target.suffix not in (".html", ".htm"):
        raise DataError(f"{target} does not end in .html: the report is a page. Choose another --out.")
    if not target.parent.is_dir():
        raise DataError(f"There is no folder {target.parent}. Make it first, or choose another --out.")
    if target.exists() and not options.force:
        raise DataError(f"{target} exists already. Remove it, choose another --out, or add --force.")
    resources = open_resources()
    page = write_page(gather(resources, options.id))
    with whole_path(target) as part:
        part.write_text(page, encoding="utf-8")
    if options.json:
        print_json({"path": str(target.absolute()), "bytes": target.stat().st_size})
    else:
        print_line(f"Wrote {target}")
    return 0


def gather(resources: Resources, text: str) -> PageContent:
    """What a page about a run, what it made, or a model version has to tell."""
    database = resources.database
    run = find_run(resources, text)
    made = run.find_output("model")
    version = find_model_version(database, text) if "@" in text else version_of(database, made.id) if made else None
    changes = assignments(database, version.model) if version else []
    trial = run if run.flow == "backtest" else _find_backtest(resources, run)
    pictures = draw_all_places(resources, run)
    for role, name in _PICTURES.items():
        if role == "plot" and pictures:
            continue
        plot = run.find_output(role) or (trial.find_output(role) if trial else None)
        if plot is not None:
            with resources.store.open(plot.digest) as file:
                pictures[name] = file.read()
    return PageContent(
        run=run,
        version=version,
        changes=[one for one in changes if version and version.number in (one.number, one.previous)],
        backtest=trial if trial and trial.status == "completed" else None,
        pictures=pictures,
    )


def draw_all_places(resources: Resources, run: RunFact) -> dict[str, bytes]:
    """Pictures of a forecast for more places than fit into one, by what they show; none where one shows them all."""
    made = run.find_output("prediction")
    if made is None or made.metadata.get("places", 0) <= MAX_PLACES or "target" not in made.metadata:
        return {}
    target = str(made.metadata["target"])
    past = next(edge.artifact for edge in run.inputs if edge.role == "historic")
    historic = read_dataset(resources.store, past.digest, past.media_type, (target,))
    predictions = load(resources.store, made, allow_pickle=False)
    places = predictions["location"].drop_duplicates().tolist()
    pictures = {}
    for start in range(0, len(places), MAX_PLACES):
        part = places[start : start + MAX_PLACES]
        shown = predictions[predictions["location"].isin(part)]
        spec = forecast_spec(historic, shown, target=target, start_of=period_start)
        pictures[f"Forecast: {part[0]} to {part[-1]}"] = render_png(spec)
    return pictures


def _find_backtest(resources: Resources, run: RunFact) -> RunFact | None:
    """The last backtest of the same model with the same values in its config, on any data."""
    found = list_runs(resources.database, flow="backtest", model=run.model, status="completed", limit=_LOOKED_THROUGH)
    wanted = _values(run)
    return next((one for one in found if _values(one) == wanted), None)


def _values(run: RunFact) -> dict[str, object]:
    """The values of a config but the horizon, which a backtest takes from its plan."""
    content = dict(run.config.content) if run.config else {}
    content.pop("prediction_periods", None)
    return content
