"""The flow that predicts with a trained model."""

from __future__ import annotations

from chapkit_flows.configs.versions import with_horizon
from chapkit_flows.flows import steps
from chapkit_flows.flows.check import resolve_horizon
from chapkit_flows.flows.results import PredictResult
from chapkit_flows.flows.secrets import with_secrets
from chapkit_flows.flows.session import RunSession
from chapkit_flows.models.contract import ModelContract


async def predict(
    model: ModelContract,
    artifact_id: str,
    inputs: tuple[str, str],
    geo: str | None = None,
    prediction_periods: int | None = None,
) -> PredictResult:
    """Load the model and the data, validate, predict, store, record, publish."""
    historic, future = inputs
    given = {"model": artifact_id, "historic": historic, "future": future, "geo": geo}
    async with RunSession(model, "predict", given | {"prediction_periods": prediction_periods}) as run:
        parent = forecast = None
        if not run.done:
            training = await steps.load_model(run, artifact_id)
            parent = training.run
            run.use_config(training.config)
            revealed = await with_secrets(model.name, training.config)
            past = await steps.load_data(run, historic, role="historic", config=training.config)
            ahead = await steps.load_data(run, future, role="future", config=training.config)
            polygons = await steps.load_geo(run, geo) if geo else None
            periods = resolve_horizon(training.config, prediction_periods, ahead.panel)
            settings = with_horizon(revealed, periods)
            asked = resolve_horizon(training.config, prediction_periods)
            panels = await steps.validate_prediction(run, settings, past, ahead, polygons, asked=asked)
            predictions, workspace = await steps.predict_future(run, training, settings, panels, polygons)
            forecast = await steps.store_prediction(run, predictions, workspace, panels)
            await steps.record(run)
        await steps.publish(run, parent=parent, forecast=forecast)
        left = run.fact.find_output("workspace")
        return PredictResult(
            run_id=run.fact.id,
            status=run.fact.status,
            artifact_id=run.fact.output("prediction").id,
            flow_run_id=run.fact.flow_run_id,
            workspace_id=left.id if left else None,
        )
