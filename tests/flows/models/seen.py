"""A model for vintages: it writes down the last period and the largest number that each call was given."""

import os
from pathlib import Path

import pandas as pd

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

KEYS = ["time_period", "location"]


class SeenConfig(ModelConfig):
    """Settings of the model."""


def note(word, data, *others):
    largest = max(frame.select_dtypes("number").max().max() for frame in (data, *others))
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(f"{word} {data['time_period'].max()} {largest}\n")


def on_train(config, data, geo=None):
    note("train", data)
    return data.groupby("location")["disease_cases"].mean().to_dict()


def on_update(config, model, data, geo=None):
    note("update", data)
    return model | data.groupby("location")["disease_cases"].mean().dropna().to_dict()


def on_predict(config, model, historic, future, geo=None):
    assert "disease_cases" not in future.columns
    note("predict", historic, future)
    level = future["location"].map(model)
    return pd.concat([future[KEYS], pd.DataFrame({f"sample_{number}": level + number for number in range(5)})], axis=1)


seen = Model(
    name="seen",
    config=SeenConfig,
    runner=FunctionalModelRunner(on_train, on_predict, on_update=on_update),
    required_covariates=["rainfall"],
)
