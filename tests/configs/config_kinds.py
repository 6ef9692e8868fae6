"""Config classes of every kind that a user may write, each with the model it belongs to."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from pydantic import AliasChoices, BaseModel, Field, SecretStr

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig


class PlainKindConfig(ModelConfig):
    """Settings whose fields all have defaults."""

    n_lags: int = 3


class BareKindConfig(ModelConfig):
    """Settings that add no field."""


class DeeperKindConfig(PlainKindConfig):
    """Settings that add to those of another model."""

    depth: int = 2


class AliasKindConfig(ModelConfig):
    """Settings whose names are not Python's."""

    n_lags: int = Field(default=3, alias="n-lags")
    ridge: float = Field(default=1.0, validation_alias="ridge-penalty", serialization_alias="ridge-penalty")
    waves: int = Field(default=2, validation_alias=AliasChoices("n-waves", "n_waves"))
    seed: int = Field(default=0, serialization_alias="random-seed")


class Tuning(BaseModel):
    """Settings within the settings."""

    rate: float = 0.1
    steps: list[int] = [1, 2]


class NestedKindConfig(ModelConfig):
    """Settings that are not flat."""

    tuning: Tuning = Tuning()
    weights: dict[str, float] = {"rain": 0.5}
    places: list[str] = ["001"]
    family: Literal["poisson", "gaussian"] = "poisson"
    note: str | None = None


class SecretKindConfig(ModelConfig):
    """Settings with a secret."""

    token: SecretStr = SecretStr("none")


class RequiredKindConfig(ModelConfig):
    """Settings with a field that has no default."""

    region: str


KINDS: dict[type[ModelConfig], dict[str, object]] = {
    PlainKindConfig: {"n_lags": 5},
    BareKindConfig: {"prediction_periods": 6},
    DeeperKindConfig: {"n_lags": 5, "depth": 4},
    AliasKindConfig: {"n-lags": 5, "ridge-penalty": 0.5, "waves": 4, "random-seed": 9},
    NestedKindConfig: {
        "tuning": {"rate": 0.2, "steps": [3]},
        "weights": {"rain": 1.0, "heat": 2.0},
        "places": ["001", "NA"],
        "family": "gaussian",
        "note": "é ☔",
    },
    SecretKindConfig: {"token": "s3cret"},
    RequiredKindConfig: {"region": "north"},
}
"""Each class with values that differ from its defaults, by the names that a user writes."""


def on_train(config: ModelConfig, data: pd.DataFrame, geo: object = None) -> int:
    return len(data)


def on_predict(
    config: ModelConfig, model: int, historic: pd.DataFrame, future: pd.DataFrame, geo: object = None
) -> pd.DataFrame:
    return future[["time_period", "location"]].assign(prediction=float(model))


def _model(config_type: type[ModelConfig]) -> Model:
    name = config_type.get_block_type_slug()
    return Model(name=name, config=config_type, runner=FunctionalModelRunner(on_train, on_predict))


plain, bare, deeper, alias, nested, secret, required = models = tuple(map(_model, KINDS))
