"""The contract of a model: what it refuses when it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig
from chapkit_flows.errors import InvalidModel

RUNNER = FunctionalModelRunner(print, print)


def make(**changes: Any) -> Model:
    return Model(**({"name": "rain", "config": ModelConfig, "runner": RUNNER} | changes))


@pytest.mark.parametrize("name", ["rain", "r", "2nd-rain_model", "x" * 63])
def test_good_names(name: str) -> None:
    """A name of lower-case letters, digits, - and _ is kept, and names the flows."""
    model = make(name=name)
    expected = [f"{name}-train", f"{name}-predict", f"{name}-validate"]
    assert expected == [model.train.name, model.predict.name, model.validate.name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *[
            ({"name": name}, "model name .* is not usable")
            for name in ("", "Rain", "-a", "a b", "a/b", "é", "x" * 64, "a\n")
        ],
        ({"period_type": "hourly"}, "period_type is 'hourly'; write one of daily, weekly, monthly, yearly, any"),
        ({"min_prediction_periods": 0}, "bounds 0 to None hold no horizon"),
        ({"min_prediction_periods": -1, "max_prediction_periods": 3}, "bounds -1 to 3 hold no horizon"),
        ({"min_prediction_periods": 4, "max_prediction_periods": 3}, "bounds 4 to 3 hold no horizon"),
        ({"max_prediction_periods": 0}, "bounds 1 to 0 hold no horizon"),
        ({"required_covariates": "rainfall"}, "required_covariates is the text 'rainfall'; write a list"),
        ({"config": ModelConfig()}, "write a subclass of ModelConfig"),
        ({"config": dict}, "write a subclass of ModelConfig"),
        ({"runner": FunctionalModelRunner}, "runner is .*FunctionalModelRunner.*; write an instance"),
        ({"runner": print}, "runner is .*print.*; write an instance"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    """A contract that can never be met is refused in the model's file, with the model's name or what to write."""
    with pytest.raises(InvalidModel, match=message):
        make(**changes)


def test_bounds_may_meet() -> None:
    """A model may predict exactly one horizon."""
    model = make(min_prediction_periods=3, max_prediction_periods=3)
    assert (3, 3) == (model.min_prediction_periods, model.max_prediction_periods)


def test_covariates_of_a_run() -> None:
    """The required covariates come first, then what the config adds, each once."""
    model = make(required_covariates=["rain", "heat"])
    config = ModelConfig(additional_continuous_covariates=["wind", "rain"])
    assert ("rain", "heat", "wind") == model.covariates(config)


named = make()


def test_entrypoint_is_where_the_model_stands() -> None:
    """A model knows its file and its name there, so that another process can load it; an unnamed one has none."""
    assert f"{Path(__file__).resolve()}:named" == named.entrypoint
    assert make().entrypoint is None
