"""Scores as Vega-Lite charts: calibration, scores by horizon, models side by side, a map of places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chapkit_flows.errors import EvaluationError
from chapkit_flows.evaluation.charts import Spec
from chapkit_flows.evaluation.comparison import Comparison
from chapkit_flows.evaluation.metrics import LEVELS, METRICS, Metric, metric_named
from chapkit_flows.evaluation.scores import summarise

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_CONFIG: Mapping[str, Any] = {
    "background": "white",
    "font": "sans-serif",
    "axis": {"labelFontSize": 11, "titleFontSize": 11},
    "view": {"stroke": "#dddddd"},
}
_BLUE, _GREY, _RED = "#1f5fa8", "#999999", "#b2182b"
_BINS = 10


def calibration_spec(scores: Mapping[str, pd.DataFrame]) -> Spec:
    """Per model: the histogram of the PIT, flat if calibrated, and the coverage of intervals against their level.

    The histogram is that of Czado, Gneiting and Held (2009), Biometrics 65, 1254-1261: the probability of a count is
    spread evenly over its step of the PIT, so that it is flat for calibrated counts too.

    Args:
        scores: By model, as `score_split` returns them, of all folds below each other.
    """
    bars: list[Spec] = []
    points: list[Spec] = []
    for model, frame in scores.items():
        shares = pit_histogram(frame)
        bars += [
            {"model": model, "from": number / _BINS, "to": (number + 1) / _BINS, "share": float(share)}
            for number, share in enumerate(shares)
        ]
        coverage = summarise(frame, metrics=[metric_named(f"coverage_{level * 100:.0f}") for level in LEVELS])
        points += [
            {"model": model, "level": level, "covered": float(covered)}
            for level, covered in zip(LEVELS, coverage["value"], strict=True)
            if np.isfinite(covered)
        ]
    # One scale for all, so that their heights compare.
    most = max([0.2, *(bar["share"] for bar in bars)])
    panels = [_histogram([bar for bar in bars if bar["model"] == model], most) | {"title": model} for model in scores]
    histograms: Spec = {"concat": panels, "columns": 3}
    rows = [histograms, _reliability(points, list(scores))]
    # The legend belongs to the lower panel, not to the whole.
    return _whole({"vconcat": rows, "resolve": {"legend": {"color": "independent"}}})


def pit_histogram(scores: pd.DataFrame) -> NDArray[np.float64]:
    """The share of the PIT in each tenth from 0 to 1, each step of it spread evenly; they add up to 1.

    Raises:
        EvaluationError: No row has a PIT, as of point forecasts.
    """
    known = scores[["pit_low", "pit_high"]].dropna().to_numpy(dtype="float64")
    if not len(known):
        raise EvaluationError("No forecast has a PIT, which takes more than one sample: there is no calibration.")
    low, high = known[:, :1], known[:, 1:]
    edges = np.linspace(0, 1, _BINS + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.clip((edges - low) / (high - low), 0, 1)
    # A truth that no sample equals has a step without width: all of it is in one bin, at 1 in the last.
    bins = np.clip(np.ceil(low * _BINS), 1, _BINS)
    spread = np.where(high > low, spread, np.arange(_BINS + 1) >= bins)
    shares: NDArray[np.float64] = np.diff(spread, axis=1).mean(axis=0)
    return shares


def _histogram(bars: list[Spec], most: float) -> Spec:
    x = {"field": "from", "type": "quantitative", "title": "PIT", "axis": {"tickCount": 5}}
    y: Spec = {"field": "share", "type": "quantitative", "title": "Share of forecasts", "axis": {"format": ".0%"}}
    y["scale"] = {"domain": [0, most]}
    bar: Spec = {
        "mark": {"type": "bar", "color": _BLUE, "opacity": 0.8, "stroke": "white"},
        "encoding": {"x": x | {"bin": "binned"}, "x2": {"field": "to"}, "y": y},
    }
    ideal: Spec = {
        "mark": {"type": "rule", "color": _RED, "strokeDash": [4, 4]},
        "encoding": {"y": {"datum": 1 / _BINS}},
    }
    return {"width": 200, "height": 140, "data": {"values": bars}, "layer": [bar, ideal]}


def _reliability(points: list[Spec], models: Sequence[str]) -> Spec:
    share = {"axis": {"format": ".0%"}, "type": "quantitative"}
    encoding: Spec = {
        "x": share | {"field": "level", "title": "Level of the interval", "scale": {"domain": [0.4, 1]}},
        "y": share | {"field": "covered", "title": "Share of truths inside", "scale": {"domain": [0, 1]}},
        "color": _colour(models, legend="right"),
    }
    ideal = [{"level": 0.4, "covered": 0.4}, {"level": 1.0, "covered": 1.0}]
    diagonal: Spec = {
        "data": {"values": ideal},
        "mark": {"type": "line", "color": _RED, "strokeDash": [4, 4]},
        "encoding": {name: encoding[name] for name in ("x", "y")},
    }
    lines: Spec = {
        "data": {"values": points},
        "mark": {"type": "line", "point": {"size": 50}, "strokeWidth": 2},
        "encoding": encoding,
    }
    return {"width": 320, "height": 220, "title": "Coverage: ideal on the dashed line", "layer": [diagonal, lines]}


def horizon_spec(
    scores: Mapping[str, pd.DataFrame], names: Sequence[str] = ("crps", "crps_log1p"), *,
    metrics: Sequence[Metric] = METRICS,
) -> Spec:  # fmt: skip
    """A panel per metric: how it grows with the number of periods ahead, a line per model.

    Args:
        scores: By model, as `score_split` returns them, of all folds below each other.
        names: The metrics to show.
        metrics: The table of metrics.
    """
    shown = [metric_named(name, metrics) for name in names]
    tables = [summarise(frame, ["horizon"], metrics=shown).assign(model=model) for model, frame in scores.items()]
    table = pd.concat(tables, ignore_index=True).dropna(subset=["value"])
    most = int(table["horizon"].max()) if len(table) else 1
    panels = [_horizons(table[table["metric"] == metric.name], metric, list(scores), most) for metric in shown]
    return _whole({"hconcat": panels})


def _horizons(table: pd.DataFrame, metric: Metric, models: Sequence[str], most: int) -> Spec:
    ticks = list(range(1, most + 1)) if most <= 12 else None
    x: Spec = {"field": "horizon", "type": "quantitative", "title": "Periods ahead", "axis": {"format": "d"}}
    if ticks:
        x["axis"] |= {"values": ticks}
    encoding: Spec = {
        "x": x | {"scale": {"domain": [1, max(most, 2)], "nice": False, "padding": 12}},
        "y": {"field": "value", "type": "quantitative", "title": _titled(metric)},
        "color": _colour(models),
    }
    return {
        "width": 260,
        "height": 200,
        "data": {"values": _rows(table[["model", "horizon", "value"]])},
        "mark": {"type": "line", "point": {"size": 50}, "strokeWidth": 2},
        "encoding": encoding,
    }


def comparison_spec(comparison: Comparison, *, metrics: Sequence[Metric] = METRICS) -> Spec:
    """A bar per model: its skill against the reference, with its score and what the test says beside it."""
    metric = metric_named(comparison.metric, metrics)
    rows = [
        {
            "model": row.model,
            "skill": row.skill,
            "note": f"{row.mean:.4g}, "
            + ("no test" if row.p_value is None else f"p = {row.p_value:.2g}" if row.p_value >= 0.001 else "p < 0.001"),
        }
        for row in comparison.rows
        if row.skill is not None
    ]
    if not rows:
        raise EvaluationError(f"No model has a skill against {comparison.reference}, whose {metric.title} is 0.")
    skills = [row.skill for row in comparison.rows if row.skill is not None]
    # Room for the text behind the longest bar.
    reach = max(max(map(abs, skills)), 0.05) * 1.7
    y = {"field": "model", "type": "nominal", "title": None, "sort": [row["model"] for row in rows]}
    x = {
        "field": "skill",
        "type": "quantitative",
        "title": f"Skill in {metric.title} against {comparison.reference} (right is better)",
        "axis": {"format": ".0%"},
        "scale": {"domain": [-reach if min(skills) < 0 else 0, reach if max(skills) > 0 else 0], "nice": False},
    }
    colour = {"condition": {"test": "datum.skill < 0", "value": _RED}, "value": _BLUE}
    bars: Spec = {"mark": {"type": "bar", "height": 18}, "encoding": {"x": x, "y": y, "color": colour}}
    texts: list[Spec] = [
        {
            "transform": [{"filter": f"datum.skill {sign} 0"}],
            "mark": {"type": "text", "align": align, "dx": shift, "fontSize": 11},
            "encoding": {"x": x, "y": y, "text": {"field": "note"}},
        }
        for sign, align, shift in ((">=", "left", 5), ("<", "right", -5))
    ]
    zero: Spec = {"mark": {"type": "rule", "color": _GREY}, "encoding": {"x": {"datum": 0}}}
    height = 28 * len(rows) + 10
    return _whole({"width": 460, "height": height, "data": {"values": rows}, "layer": [bars, zero, *texts]})


def map_spec(
    scores: pd.DataFrame, polygons: Mapping[str, Any], name: str = "crps_log1p", *, metrics: Sequence[Metric] = METRICS
) -> Spec:
    """A map: the score of each place, grey where it has none.

    Args:
        scores: As `score_split` returns them.
        polygons: A GeoJSON FeatureCollection whose feature ids are the places.
        name: The metric.
        metrics: The table of metrics.

    Raises:
        EvaluationError: No polygon is of a place that has a score.
    """
    metric = metric_named(name, metrics)
    table = summarise(scores, ["location"], metrics=[metric]).dropna(subset=["value"])
    values = dict(zip(table["location"], table["value"], strict=True))
    features = [_feature(feature, values) for feature in polygons["features"]]
    if all(feature["properties"]["score"] is None for feature in features):
        raise EvaluationError("No polygon has the id of a place that was scored. Give the GeoJSON of the same places.")
    # Vega's scheme in reverse where more is better, so that red is always worse.
    scale = {"scheme": "orangered", "reverse": metric.orientation == "higher"}
    colour = {
        "condition": {"test": "isValid(datum.properties.score)", "field": "properties.score", "type": "quantitative",
                      "title": _titled(metric), "scale": scale},
        "value": "#dddddd",
    }  # fmt: skip
    return _whole(
        {
            "width": 360,
            "height": 480,
            "data": {"values": features},
            # GeoJSON winds rings the other way than the spherical projections expect, which would fill the outside.
            "projection": {"type": "identity", "reflectY": True},
            "mark": {"type": "geoshape", "stroke": "white", "strokeWidth": 0.5},
            "encoding": {"color": colour},
        }
    )


def composed_spec(specs: Sequence[Spec]) -> Spec:
    """Several charts below each other, as one picture; each keeps its own colours and legend."""
    parts = [{name: value for name, value in spec.items() if name not in ("$schema", "config")} for spec in specs]
    # As far apart as a title needs, and each scale for its own chart.
    independent = {"color": "independent", "x": "independent", "y": "independent"}
    return _whole({"vconcat": parts, "spacing": 40, "resolve": {"scale": independent}})


def _feature(feature: Mapping[str, Any], values: Mapping[Any, float]) -> Spec:
    place = str(feature.get("id"))
    score = values.get(place)
    return {
        "type": "Feature",
        "geometry": feature["geometry"],
        "properties": {"place": place, "score": None if score is None else float(score)},
    }


def _titled(metric: Metric) -> str:
    better = {"lower": " (less is better)", "higher": " (more is better)"}.get(metric.orientation, "")
    return metric.title + better


def _colour(models: Sequence[str], legend: str = "top") -> Spec:
    return {
        "field": "model",
        "type": "nominal",
        "scale": {"domain": list(models), "scheme": "tableau10"},
        "legend": {"title": None, "orient": legend, "labelFontSize": 12},
    }


def _whole(spec: Spec) -> Spec:
    return {"$schema": _SCHEMA, **spec, "config": dict(_CONFIG)}


def _rows(frame: pd.DataFrame) -> list[Spec]:
    return cast(list[Spec], frame.to_dict(orient="records"))
