"""The flow that trains a model."""

from __future__ import annotations

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import with_horizon
from chapkit_flows.flows import steps
from chapkit_flows.flows.check import resolve_horizon
from chapkit_flows.flows.places import fit_model
from chapkit_flows.flows.results import TrainResult
from chapkit_flows.flows.secrets import with_secrets
from chapkit_flows.flows.session import RunSession
from chapkit_flows.models.contract import ModelContract


async def train(
    model: ModelContract,
    config: ModelConfig,
    data: str,
    geo: str | None = None,
    prediction_periods: int | None = None,
) -> TrainResult:
    """Load and fingerprint the data, validate, fit, store, record, publish."""
    given = {"data": data, "geo": geo, "prediction_periods": prediction_periods}
    async with RunSession(model, "train", given, config=config) as run:
        if not run.done:
            settings = with_horizon(config, resolve_horizon(config, prediction_periods))
            revealed = await with_secrets(model.name, settings)
            table = await steps.load_data(run, data, role="data", config=settings)
            polygons = await steps.load_geo(run, geo) if geo else None
            panel = await steps.validate_training(run, revealed, table, polygons)
            trained = await fit_model(run, (settings, revealed), panel, polygons)
            await steps.store_model(run, trained, settings, panel)
            await steps.record(run)
        await steps.publish(run)
        return TrainResult(
            run_id=run.fact.id,
            status=run.fact.status,
            artifact_id=run.fact.output("model").id,
            flow_run_id=run.fact.flow_run_id,
        )
