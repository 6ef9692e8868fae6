"""The runner of a model that is two functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from chapkit_flows.models.runner import BaseModelRunner, Geo


class FunctionalModelRunner(BaseModelRunner):
    """Run a model that is two functions, `def` or `async def`.

    Args:
        on_train: `(config, data, geo) -> model`, any object that can be pickled.
        on_predict: `(config, model, historic, future, geo) -> frame`.
        on_validate_train: `(config, data, geo) -> diagnostics`.
        on_validate_predict: `(config, historic, future, geo) -> diagnostics`.
        on_update: `(config, model, data, geo) -> model`: goes on training with rows that came since.
    """

    def __init__(
        self,
        on_train: Callable[..., Any],
        on_predict: Callable[..., Any],
        on_validate_train: Callable[..., Any] | None = None,
        on_validate_predict: Callable[..., Any] | None = None,
        *,
        on_update: Callable[..., Any] | None = None,
    ) -> None:
        self._on_train = on_train
        self._on_predict = on_predict
        self._on_validate_train = on_validate_train
        self._on_validate_predict = on_validate_predict
        self._on_update = on_update
        self.can_update = on_update is not None

    def on_train(self, config: Any, data: pd.DataFrame, geo: Geo | None = None) -> Any:
        """Call the user's function."""
        return self._on_train(config, data, geo)

    def on_predict(
        self,
        config: Any,
        model: Any,
        historic: pd.DataFrame,
        future: pd.DataFrame,
        geo: Geo | None = None,
    ) -> Any:
        """Call the user's function."""
        return self._on_predict(config, model, historic, future, geo)

    def on_update(self, config: Any, model: Any, data: pd.DataFrame, geo: Geo | None = None) -> Any:
        """Call the user's function."""
        return self._on_update(config, model, data, geo) if self._on_update else super().on_update(config, model, data)

    def on_validate_train(self, config: Any, data: pd.DataFrame, geo: Geo | None = None) -> Any:
        """Call the user's function, if there is one."""
        return self._on_validate_train(config, data, geo) if self._on_validate_train else []

    def on_validate_predict(
        self,
        config: Any,
        historic: pd.DataFrame,
        future: pd.DataFrame,
        geo: Geo | None = None,
    ) -> Any:
        """Call the user's function, if there is one."""
        return self._on_validate_predict(config, historic, future, geo) if self._on_validate_predict else []
