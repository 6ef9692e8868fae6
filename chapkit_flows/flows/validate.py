"""The flow that checks inputs without running the model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prefect.logging import get_run_logger

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.rules import check_rules
from chapkit_flows.configs.secrets import reveal
from chapkit_flows.configs.versions import with_horizon
from chapkit_flows.errors import DataError, ValidationFailed
from chapkit_flows.flows.check import (
    Loaded,
    check_prediction,
    check_trained_places,
    check_training,
    errors_first,
    has_errors,
    resolve_horizon,
)
from chapkit_flows.flows.ingest import UNREADABLE, fetch, parse_geo, parse_table, unreadable
from chapkit_flows.flows.results import ValidateResult
from chapkit_flows.flows.session import name_run
from chapkit_flows.flows.steps import prediction_findings, step, training_findings
from chapkit_flows.flows.summary import publish_diagnostics
from chapkit_flows.flows.training import load_training
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.runner import Geo
from chapkit_flows.refs import Diagnostic
from chapkit_flows.resources import open_resources

Inputs = Mapping[str, str | None]


async def validate(
    model: ModelContract, config: ModelConfig | None, artifact_id: str | None, inputs: Inputs
) -> ValidateResult:
    """Check the inputs of a training, or of a prediction if a trained model is named."""
    await name_run(model.name)
    if artifact_id is None:
        findings = await check_training_inputs(model, config, inputs)
    else:
        findings = await check_prediction_inputs(model, artifact_id, inputs)
    if findings:
        await publish_diagnostics(model.name, findings)
    for found in findings:
        get_run_logger().info("%s %s: %s", found.severity, found.code, found.message)
    return ValidateResult(valid=not has_errors(findings), diagnostics=findings)


@step("check training inputs")
async def check_training_inputs(
    model: ModelContract, config: ModelConfig | None, inputs: Inputs
) -> tuple[Diagnostic, ...]:
    """All findings; nothing is stored."""
    assert issubclass(model.config, ModelConfig)
    settings, unresolved = await reveal(config or model.config())
    data, geo, trouble = await _read(model, settings, inputs, roles=("data",))
    if unresolved:  # the model's own check would see references in the place of values
        periods = settings.prediction_periods
        return errors_first([*unresolved, *trouble, *check_training(model, settings, data[0], geo, periods=periods)])
    return errors_first([*trouble, *await training_findings(model, settings, data[0], geo)])


@step("check prediction inputs")
async def check_prediction_inputs(model: ModelContract, artifact_id: str, inputs: Inputs) -> tuple[Diagnostic, ...]:
    """All findings; nothing is stored."""
    try:
        training = await load_training(open_resources().database, model, artifact_id)
    except ValidationFailed as refusal:
        return refusal.diagnostics
    (historic, future), geo, trouble = await _read(model, training.config, inputs, roles=("historic", "future"))
    config, unresolved = await reveal(training.config)
    settings = with_horizon(config, resolve_horizon(config, None, future.panel))
    asked = config.prediction_periods
    if unresolved:
        periods = settings.prediction_periods
        found = check_prediction(model, historic, future, geo, periods=periods, asked=asked)
        findings = errors_first([*unresolved, *found, *check_rules(settings)])
    else:
        findings = await prediction_findings(model, settings, historic, future, geo, asked=asked)
    trouble += check_trained_places(training.artifact, future.panel)
    if not await asyncio.to_thread(open_resources().store.has, training.artifact.digest):
        message = (
            f"The bytes of {training.artifact.id} are not in the store. Restore them from a backup, or train again."
        )
        trouble.append(Diagnostic.error("training_artifact_missing", message, "model"))
    return errors_first([*trouble, *findings])


async def _read(
    model: ModelContract, config: ModelConfig, inputs: Inputs, *, roles: tuple[str, ...]
) -> tuple[list[Loaded], Geo | None, list[Diagnostic]]:
    """Read the inputs; what cannot be read becomes a finding."""

    def work() -> tuple[list[Loaded], Geo | None, list[Diagnostic]]:
        resources = open_resources()
        tables, geo, trouble = [], None, []
        for role in (*roles, "geo"):
            uri = inputs.get(role)
            try:
                if uri is None:
                    if role != "geo":
                        raise DataError(f"No {role} was given. Pass a path or a URL.")
                    continue
                with fetch(resources, uri) as fetched:
                    if role == "geo":
                        geo = parse_geo(fetched)
                        continue
                    covariates = model.covariates(config)
                    tables.append(
                        parse_table(
                            fetched, role, required=covariates, target=model.target, with_target=role != "future"
                        )
                    )
            except UNREADABLE as error:
                trouble.append(unreadable(error, role))
                if role != "geo":
                    tables.append(Loaded(panel=None, findings=()))
        return tables, geo, trouble

    return await asyncio.to_thread(work)
