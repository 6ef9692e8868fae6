"""The contract of a runner: how the flows call a model's code."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias, TypeVar

import pandas as pd
from geojson_pydantic import FeatureCollection

from chapkit_flows.errors import InvalidPrediction
from chapkit_flows.refs import Diagnostic

T = TypeVar("T")
Geo: TypeAlias = FeatureCollection[Any]


class Config(Protocol):
    """What a runner may count on in any model's config."""

    prediction_periods: int
    additional_continuous_covariates: list[str]

    def values(self, *, reveal: bool = False) -> dict[str, Any]:
        """All values by alias, as plain JSON types; secret ones masked, unless they are to be revealed."""
        ...


class BaseModelRunner(ABC):
    """Subclass it for a model that is a class. Every method may be `def` or `async def`.

    The methods of one train or predict run are called in one worker thread that has an event loop of its
    own, so blocking code blocks nothing but itself. One runner may serve several runs at once: keep what
    belongs to a run out of `self`.

    The frames have the columns `time_period` (`2020-01-31`, `2020-W05`, `2020-01` or `2020`) and `location` as text,
    the target and the covariates as numbers; `geo` is None when the run was given none.
    """

    def on_init(self) -> Any:
        """Prepare; called before training and before prediction."""

    def on_cleanup(self) -> Any:
        """Tidy up; called after training and after prediction, also when they failed."""

    @abstractmethod
    def on_train(self, config: Any, data: pd.DataFrame, geo: Geo | None = None) -> Any:
        """Fit, and return a model: any object that can be pickled."""

    @abstractmethod
    def on_predict(
        self,
        config: Any,
        model: Any,
        historic: pd.DataFrame,
        future: pd.DataFrame,
        geo: Geo | None = None,
    ) -> Any:
        """Predict each row of `future`.

        Returns:
            A frame with `time_period`, `location` and either `sample_0`, `sample_1`, … or `prediction`.
        """

    can_update: bool = False
    """Whether `on_update` can be called; a subclass that defines it says so."""

    def on_update(self, config: Any, model: Any, data: pd.DataFrame, geo: Geo | None = None) -> Any:
        """Go on training with rows that came since, and return the model; for backtests with the strategy `update`."""
        raise NotImplementedError

    def on_validate_train(
        self, config: Any, data: pd.DataFrame, geo: Geo | None = None
    ) -> Sequence[Diagnostic] | Awaitable[Sequence[Diagnostic]]:
        """The model's own findings about training inputs."""
        return []

    def on_validate_predict(
        self,
        config: Any,
        historic: pd.DataFrame,
        future: pd.DataFrame,
        geo: Geo | None = None,
    ) -> Sequence[Diagnostic] | Awaitable[Sequence[Diagnostic]]:
        """The model's own findings about prediction inputs."""
        return []

    def join_places(self, returned: Mapping[str, Any]) -> Any:
        """Make one prediction of what `on_predict` returned for each place, in a model that is trained per place.

        Raises:
            InvalidPrediction: For some place it is no frame.
        """
        for place, one in returned.items():
            if not isinstance(one, pd.DataFrame):
                raise InvalidPrediction(
                    f"on_predict returned {type(one).__name__} for the place {place!r}, not a frame. Return "
                    "time_period, location and sample_0, sample_1, … (or prediction), one row for each row of future."
                )
        return pd.concat(returned.values(), ignore_index=True)

    def describe(self, result: Any) -> Mapping[str, Any]:
        """JSON facts about what `on_train` or `on_predict` returned, kept with the artifact."""
        return {}

    def source_digest(self) -> str | None:
        """Of the commands and files that this runner runs beside the module that defines it; None if there are none."""
        return None


async def settle(value: T | Awaitable[T]) -> T:
    """Await what an `async def` callback returned; pass on what a `def` callback returned."""
    return await value if inspect.isawaitable(value) else value


@asynccontextmanager
async def initialised(runner: BaseModelRunner) -> AsyncIterator[BaseModelRunner]:
    """Call `on_init` before the body and `on_cleanup` after it, whatever happens."""
    try:
        await settle(runner.on_init())
        yield runner
    finally:
        await settle(runner.on_cleanup())
