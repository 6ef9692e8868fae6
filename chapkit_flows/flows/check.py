"""Do the inputs of a run fit the model's contract? Findings only; callers decide whether to raise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.rules import check_rules
from chapkit_flows.data.geo import check_geo
from chapkit_flows.data.panels import Panel, horizon
from chapkit_flows.data.periods import period_ordinal
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.places import check_places
from chapkit_flows.models.runner import Geo
from chapkit_flows.refs import ArtifactRef, Diagnostic


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A table that was read, and what its content alone says.

    Attributes:
        panel: None if the table cannot be read as place x period.
        findings: Of the table by itself.
    """

    panel: Panel | None
    findings: tuple[Diagnostic, ...]


def errors_first(findings: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The same findings, errors before warnings before information."""
    order = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(findings, key=lambda found: order[found.severity]))


def has_errors(findings: Sequence[Diagnostic]) -> bool:
    """Whether a run must not start."""
    return any(found.severity == "error" for found in findings)


def resolve_horizon(config: ModelConfig, explicit: int | None, future: Panel | None = None) -> int:
    """Periods ahead: the explicit number, else the distinct periods per place in `future`, else the config's."""
    if explicit is not None:
        return explicit
    return horizon(future) if future is not None else config.prediction_periods


def check_training(
    model: ModelContract, config: ModelConfig, data: Loaded, geo: Geo | None, *, periods: int
) -> tuple[Diagnostic, ...]:
    """Everything that training inputs are checked for, but for the model's own checks."""
    findings = [*data.findings, *check_config(model, config), *check_rules(config), *check_horizon(model, periods)]
    findings += _check_geo(model, geo, data.panel)
    findings += _check_period_type(model, data.panel, "data")
    return errors_first(findings)


def check_prediction(
    model: ModelContract, historic: Loaded, future: Loaded, geo: Geo | None, *, periods: int, asked: int
) -> tuple[Diagnostic, ...]:
    """Everything that prediction inputs are checked for, but for the model's own checks.

    Args:
        periods: The horizon of the run.
        asked: The explicit horizon, else that of the training's config.
    """
    findings = [*historic.findings, *future.findings, *check_horizon(model, periods)]
    findings += _check_geo(model, geo, future.panel)
    findings += _check_period_type(model, historic.panel, "historic")
    if historic.panel is not None and future.panel is not None:
        findings += _check_future(historic.panel, future.panel, asked)
    return errors_first(findings)


def check_trained_places(trained: ArtifactRef, future: Panel | None) -> list[Diagnostic]:
    """Whether a model that was trained for each place was so for those of the future; one of all places is for any."""
    places = trained.metadata.get("trained_places")
    return check_places(places, future.locations) if places is not None and future is not None else []


def check_config(model: ModelContract, config: ModelConfig) -> list[Diagnostic]:
    """Whether the config asks for covariates that the model cannot take."""
    added = [name for name in config.additional_continuous_covariates if name not in model.required_covariates]
    if not added or model.allow_free_additional_continuous_covariates:
        return []
    return [
        Diagnostic.error(
            "additional_covariates_not_allowed",
            f"The config adds the covariates {', '.join(added)}, but the model {model.name} takes only "
            f"{', '.join(model.required_covariates) or 'none'}. Remove them from the config.",
            "config.additional_continuous_covariates",
        )
    ]


def check_horizon(model: ModelContract, periods: int) -> list[Diagnostic]:
    """Whether the model predicts that far."""
    lower, upper = model.min_prediction_periods, model.max_prediction_periods
    if periods >= lower and (upper is None or periods <= upper):
        return []
    bounds = f"{lower} to {upper}" if upper is not None else f"{lower} or more"
    return [
        Diagnostic.error(
            "prediction_periods_out_of_bounds",
            f"{periods} prediction periods: the model {model.name} predicts {bounds}. Change prediction_periods, "
            "or the periods in the future data.",
            "prediction_periods",
        )
    ]


def _check_geo(model: ModelContract, geo: Geo | None, panel: Panel | None) -> Sequence[Diagnostic]:
    if geo is None and model.requires_geo:
        message = f"The model {model.name} needs polygons. Pass a GeoJSON FeatureCollection as geo."
        return [Diagnostic.error("missing_geo", message, "geo")]
    return check_geo(geo, panel.locations) if geo is not None and panel is not None else []


def _check_period_type(model: ModelContract, panel: Panel | None, role: str) -> list[Diagnostic]:
    if panel is None or model.period_type in ("any", panel.period_type):
        return []
    return [
        Diagnostic.error(
            "wrong_period_type",
            f"The periods of {role} are {panel.period_type}; the model {model.name} takes {model.period_type} data.",
            f"{role}.time_period",
        )
    ]


def _check_future(historic: Panel, future: Panel, asked: int) -> list[Diagnostic]:
    """How the future fits what came before it."""
    if historic.period_type != future.period_type:
        message = f"historic is {historic.period_type}, future is {future.period_type}. Use one of them in both."
        return [Diagnostic.error("mixed_period_types", message, "future.time_period")]
    findings = []
    if asked != horizon(future):
        message = f"{asked} prediction periods are asked for, but future holds {horizon(future)} per place."
        findings.append(Diagnostic.warning("prediction_periods_mismatch", message, "prediction_periods"))
    unknown = sorted(set(future.locations) - set(historic.locations))
    if unknown:
        message = f"{len(unknown)} places of future are not in historic, such as {', '.join(unknown[:5])}."
        findings.append(Diagnostic.warning("unknown_location", message, "future.location"))
    absent = sorted(set(historic.locations) - set(future.locations))
    if absent:
        message = f"{len(absent)} places of historic are not in future, such as {', '.join(absent[:5])}: no forecast."
        findings.append(Diagnostic.warning("location_not_in_future", message, "future.location"))
    per_place = future.frame.groupby("location")["time_period"].agg(["min", "max"]).value_counts()
    if len(per_place) > 1:
        message = f"The places of future span {len(per_place)} different ranges of periods. Give all of them the same."
        findings.append(Diagnostic.warning("uneven_future", message, "future.time_period"))
    last, first = historic.periods[-1], future.periods[0]
    step = period_ordinal(first) - period_ordinal(last)
    if step != 1:
        what = f"{step - 1} periods lie between them" if step > 1 else "they overlap"
        message = f"historic ends with {last} and future starts with {first}: {what}."
        findings.append(Diagnostic.warning("future_not_adjacent", message, "future.time_period"))
    return findings
