"""A model for backtests: it writes down what it was called with, and fails at the origin that FAIL_AT names."""

import os
from pathlib import Path

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

KEYS = ["time_period", "location"]


class TriedConfig(ModelConfig):
    """Settings of the tried model."""

    shift: float = 0.0


def note(word, data):
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(f"{word} {data['time_period'].min()} {data['time_period'].max()}\n")


def on_train(config, data, geo=None):
    note("train", data)
    if data["time_period"].max() == os.environ.get("FAIL_AT"):
        raise ZeroDivisionError("no rain fell")
    return data.groupby("location")["disease_cases"].mean().to_dict()


def on_update(config, model, data, geo=None):
    note("update", data)
    return {place: value + 1 for place, value in model.items()}


def on_predict(config, model, historic, future, geo=None):
    note("predict", historic)
    assert "disease_cases" not in future.columns
    level = future["location"].map(model) + config.shift
    return future[KEYS].assign(**{f"sample_{number}": level + number for number in range(5)})


tried = Model(
    name="tried",
    config=TriedConfig,
    runner=FunctionalModelRunner(on_train, on_predict, on_update=on_update),
    required_covariates=["rainfall"],
)
plain = Model(
    name="plain",
    config=TriedConfig,
    runner=FunctionalModelRunner(on_train, on_predict),
    required_covariates=["rainfall"],
)
