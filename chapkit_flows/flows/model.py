"""A model as a user defines it: its contract, and its flows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from prefect import Flow
from prefect.settings import get_current_settings
from prefect.task_runners import TaskRunner

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.errors import InvalidModel
from chapkit_flows.flows.backtest import BacktestPlan, backtest
from chapkit_flows.flows.gating import RetrainGate
from chapkit_flows.flows.predict import predict
from chapkit_flows.flows.results import (
    BacktestResult,
    PredictResult,
    RetrainResult,
    ScoreResult,
    SweepResult,
    TrainResult,
    ValidateResult,
)
from chapkit_flows.flows.retrain import retrain
from chapkit_flows.flows.runners import choose_runner, make_task_runner
from chapkit_flows.flows.score import score
from chapkit_flows.flows.searches import SweepPlan
from chapkit_flows.flows.settle import settle_after
from chapkit_flows.flows.sweep import sweep
from chapkit_flows.flows.train import train
from chapkit_flows.flows.validate import validate
from chapkit_flows.flows.vintages import VintagePlan
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.settings import TaskRunnerKind

_DEFAULT_PLAN = BacktestPlan()
_MODEL = "chapkit_flows_model"


class ModelFlow(Flow[..., Any]):
    """A flow that is a coroutine function inside, and can be called from anywhere.

    Asynchronous flows end at once where synchronous ones wait up to a second for their heartbeat. In a
    script, call it; inside a coroutine or a notebook, await it.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow: to its end in synchronous code; in a coroutine, return an awaitable."""
        running: Coroutine[Any, Any, Any] = super().__call__(*args, **kwargs)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(running)
        return running

    def with_options(self, **options: Any) -> ModelFlow:
        """A copy with other options, such as `retries`."""
        changed = super().with_options(**options)
        # Prefect makes a plain Flow; called in a script, that gives a coroutine which nobody awaits.
        changed.__class__ = ModelFlow
        return cast(ModelFlow, changed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Model(ModelContract):
    """A forecasting model and its Prefect flows.

    Example:
        ```python
        from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

        class RainConfig(ModelConfig):
            n_lags: int = 3

        rain = Model(name="rain", config=RainConfig, runner=FunctionalModelRunner(on_train, on_predict))
        trained = rain.train(RainConfig(n_lags=2), "data.csv")
        rain.predict(trained.artifact_id, "historic.csv", "future.csv")
        ```
    """

    config: type[ModelConfig]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.config, type) and issubclass(self.config, ModelConfig)):
            raise InvalidModel(f"Model {self.name}: config is {self.config!r}; write a subclass of ModelConfig.")

    @cached_property
    def train(self) -> ModelFlow:
        """The flow `(config, data, geo=None, prediction_periods=None)`."""

        async def train_flow(
            config: ModelConfig, data: str, geo: str | None = None, prediction_periods: int | None = None
        ) -> TrainResult:
            """Train the model and keep it, with what it was made from.

            Args:
                config: The settings to train with. Left blank in the form of a deployment: those it was deployed with.
                data: Where the training data is: a path, any fsspec URL, or artifact://ID. CSV or Parquet.
                geo: Where the polygons are, as GeoJSON.
                prediction_periods: How many periods ahead to predict; default: the config's.
            """
            return await train(self, config, data, geo, prediction_periods)

        flow = self._flow("train", train_flow, config=self.config)
        if self.per_place:
            flow.task_runner = self.task_runner()
        return flow

    @cached_property
    def retrain(self) -> ModelFlow:
        """The flow `(config, data, geo=None, prediction_periods=None, force=False, gate=None)`."""

        async def retrain_flow(
            config: ModelConfig,
            data: str,
            geo: str | None = None,
            prediction_periods: int | None = None,
            force: bool = False,
            gate: RetrainGate | None = None,
        ) -> RetrainResult:
            """Train the model if data, polygons, config or code are new; else keep the model in use, and say so.

            Args:
                config: The settings to train with. Left blank in the form of a deployment: those it was deployed with.
                data: Where the training data is: a path, any fsspec URL, or artifact://ID. CSV or Parquet.
                geo: Where the polygons are, as GeoJSON.
                prediction_periods: How many periods ahead to predict; default: the config's.
                force: Train even if nothing is new.
                gate: What the new model must pass to become the champion; without one it is only the latest.
            """
            done = await retrain(self, config, (data, geo), prediction_periods, force=force, gate=gate)
            # Prefect takes a state too: it becomes that of the run, and what it holds the result.
            return cast(RetrainResult, done)

        flow = self._flow("retrain", retrain_flow, config=self.config, gate=RetrainGate | None)
        flow.task_runner = self.task_runner()
        return flow

    @cached_property
    def predict(self) -> ModelFlow:
        """The flow `(model, historic, future, geo=None, prediction_periods=None)`."""

        async def predict_flow(
            model: str, historic: str, future: str, geo: str | None = None, prediction_periods: int | None = None
        ) -> PredictResult:
            """Predict with a trained model, and keep the prediction with what it was made from.

            Args:
                model: The id of a trained model, which the summary of its training names; or NAME@latest for the
                    newest one, NAME@champion for the one in use, NAME@3 for a version.
                historic: Where the data up to the forecast is: a path, any fsspec URL, or artifact://ID.
                future: Where the covariates of the periods to predict are.
                geo: Where the polygons are, as GeoJSON.
                prediction_periods: How many periods ahead; default: as many as future has.
            """
            return await predict(self, model, (historic, future), geo, prediction_periods)

        return self._flow("predict", predict_flow)

    @cached_property
    def backtest(self) -> ModelFlow:
        """The flow `(config, data, geo=None, plan=BacktestPlan(), vintages=None)`; the plans may be mappings."""

        async def backtest_flow(
            config: ModelConfig,
            data: str,
            geo: str | None = None,
            plan: BacktestPlan = _DEFAULT_PLAN,
            vintages: VintagePlan | None = None,
        ) -> BacktestResult:
            """Forecast from past origins, and score that with what came after.

            Args:
                config: The settings to train with. Left blank in the form of a deployment: those it was deployed with.
                data: Where the data is, with the truth: a path, any fsspec URL, or artifact://ID. CSV or Parquet.
                geo: Where the polygons are, as GeoJSON.
                plan: From which origins to forecast, how far ahead, and what the model may learn.
                vintages: To use at each origin only what was known then: by the column known_at, issue or as_of of
                    the data, else by what earlier readings of the same place brought.
            """
            return await backtest(self, config, data, geo, plan=plan, vintages=vintages)

        flow = self._flow("backtest", backtest_flow, config=self.config, plan=BacktestPlan, vintages=VintagePlan | None)
        flow.task_runner = self.task_runner()
        return flow

    @cached_property
    def sweep(self) -> ModelFlow:
        """The flow `(config, data, search, geo=None, plan=BacktestPlan())`; search and plan may be mappings."""

        async def sweep_flow(
            config: ModelConfig,
            data: str,
            search: SweepPlan,
            geo: str | None = None,
            plan: BacktestPlan = _DEFAULT_PLAN,
        ) -> SweepResult:
            """Backtest many configs, or several models, on the same folds, and say which is the best.

            Args:
                config: The settings in which values are changed. Left blank in the form of a deployment: those it was
                    deployed with.
                data: Where the data is, with the truth: a path, any fsspec URL, or artifact://ID. CSV or Parquet.
                search: Which values to try, and under which name the trials are found again.
                geo: Where the polygons are, as GeoJSON.
                plan: From which origins to forecast, how far ahead, and what the models may learn. No pictures are
                    drawn.
            """
            return await sweep(self, config, (data, geo), search=search, plan=plan)

        flow = self._flow("sweep", sweep_flow, config=self.config, search=SweepPlan, plan=BacktestPlan)
        flow.task_runner = self.task_runner()
        return flow

    @cached_property
    def score(self) -> ModelFlow:
        """The flow `(truth, prediction=None)`."""

        async def score_flow(truth: str, prediction: str | None = None) -> ScoreResult:
            """Score a prediction with the truth, or all predictions of the model whose truth has come.

            The metrics are then those of the prediction; scoring again with more truth adds to them.

            Args:
                truth: Where the data with the truth is: a path, any fsspec URL, or artifact://ID. CSV or Parquet.
                prediction: The id of a prediction; default: all of the model.
            """
            return await score(self, truth, prediction)

        return self._flow("score", score_flow)

    @cached_property
    def validate(self) -> ModelFlow:
        """The flow `(config=None, data=None, model=None, historic=None, future=None, geo=None)`."""

        async def validate_flow(
            config: ModelConfig | None = None,
            data: str | None = None,
            model: str | None = None,
            historic: str | None = None,
            future: str | None = None,
            geo: str | None = None,
        ) -> ValidateResult:
            """Check the inputs of a training (config, data) or a prediction (model, historic, future).

            Nothing is stored and the model is not run.

            Args:
                config: The settings to train with; default: the model's defaults.
                data: Where the training data is.
                model: The id of a trained model.
                historic: Where the data up to the forecast is.
                future: Where the covariates of the periods to predict are.
                geo: Where the polygons are, as GeoJSON.
            """
            inputs = {"data": data, "historic": historic, "future": future, "geo": geo}
            return await validate(self, config, model, inputs)

        return self._flow("validate", validate_flow, config=self.config | None)

    def task_runner(
        self, kind: TaskRunnerKind | None = None, *, workers: int | None = None, address: str | None = None
    ) -> TaskRunner[Any]:
        """Where folds run, for `rain.backtest.with_options(task_runner=rain.task_runner("dask", workers=4))`.

        Args:
            kind: threads, processes, dask or ray; default: as the settings say.
            workers: How many folds run at the same time, each on one processor; default: as the settings say.
            address: Of a running Dask or Ray cluster; default: as the settings say for this kind, else a cluster that
                starts and ends with the flow.

        Raises:
            InvalidSetting: It needs an extra that is not installed, or a value does not fit.
        """
        settings = choose_runner(kind, workers=workers, address=address)
        return make_task_runner(self.entrypoint, settings, hints=self.hints)

    def _flow(self, name: str, function: Callable[..., Coroutine[Any, Any, Any]], **types: Any) -> ModelFlow:
        """Make a Prefect flow that says it stands in the user's file, and takes the user's config class.

        The run form in Prefect's UI offers saved blocks of exactly the annotated type; `.serve` and
        `.to_deployment` find the flow again by module and qualified name.
        """
        function.__annotations__ |= types
        function.__dict__[_MODEL] = self.name
        function.__name__ = name
        function.__module__ = str(self.definition.namespace.get("__name__", function.__module__))
        function.__qualname__ = f"{self.definition.name_of(self) or self.name}.{name}"
        return ModelFlow(
            function,
            name=f"{self.name}-{name}",
            validate_parameters=True,
            persist_result=False,
            # Called by the runner, when the process of the run could not record how it ended.
            on_crashed=[settle_after],
            on_cancellation=[settle_after],
            # Nothing is written there. Without it each run asks the server for its default result storage, twice,
            # through clients of their own: a fifth of the time of a small run.
            result_storage=get_current_settings().results.local_storage_path,
        )


def model_of(flow: Flow[..., Any]) -> str | None:
    """The name of the model whose flow it is, whatever the flow is called now; None if it is no model's."""
    name: str | None = vars(flow.fn).get(_MODEL)
    return name
