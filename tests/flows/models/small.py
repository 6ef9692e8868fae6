"""Small models for tests: they learn a mean, and fail in the way that the variable FAULT names."""

import atexit
import os
import shlex
import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from chapkit_flows import Diagnostic, FunctionalModelRunner, Model, ModelConfig, ShellModelRunner
from chapkit_flows.models.workspace import Project


class SmallConfig(ModelConfig):
    """Settings of the small models."""

    samples: int = 3
    label: str = ""


KEYS = ["time_period", "location"]


def generate():
    yield 1


@cache
def open_file():
    file = Path(__file__).open("rb")  # noqa: SIM115 (open while it is to be pickled: that is the fault)
    atexit.register(file.close)
    return file


UNPICKLABLE = {
    "open file": open_file,
    "lock": threading.Lock,
    "generator": generate,
}


def on_train(config, data, geo=None):
    fault = os.environ.get("FAULT", "")
    if fault == "train raises":
        raise ZeroDivisionError("no rain fell")
    if fault == "train returns None":
        return None
    if fault in UNPICKLABLE:
        return {"held": UNPICKLABLE[fault]()}
    if fault == "large":
        return bytes(10_000_000)
    return data.groupby("location")["disease_cases"].mean().to_dict()


def on_predict(config, model, historic, future, geo=None):
    fault = os.environ.get("FAULT", "")
    if fault == "predict raises":
        raise KeyError("the sea")
    frame = future[KEYS].assign(
        **{f"sample_{n}": future["location"].map(model).to_numpy() + n for n in range(config.samples)}
    )
    return PREDICTIONS.get(fault, lambda good: good)(frame)


def spoil(frame, column, value):
    return frame.assign(**{column: [value, *frame[column].iloc[1:]]})


PREDICTIONS = {
    "returns None": lambda good: None,
    "returns a list": lambda good: [1.0, 2.0],
    "no location": lambda good: good.drop(columns="location"),
    "no values": lambda good: good[KEYS],
    "sample numbers with a gap": lambda good: good.rename(columns={"sample_2": "sample_7"}),
    "too few rows": lambda good: good.iloc[:-1],
    "too many rows": lambda good: pd.concat([good, good.tail(1).assign(time_period="2031-01")]),
    "a row twice": lambda good: pd.concat([good, good.tail(1)]),
    "missing value": lambda good: spoil(good, "sample_1", np.nan),
    "infinite value": lambda good: spoil(good, "sample_1", np.inf),
    "text value": lambda good: spoil(good.astype({"sample_1": object}), "sample_1", "many"),
    "unknown place": lambda good: spoil(good, "location", "Atlantis"),
    "no period": lambda good: spoil(good, "time_period", "next year"),
}


def on_validate_train(config, data, geo=None):
    if config.label == "refused":
        return [Diagnostic.error("label_refused", "The label may not be 'refused'. Choose another.", "config.label")]
    return []


def on_validate_predict(config, historic, future, geo=None):
    if config.label == "refused later":
        return [Diagnostic.error("label_refused", "The label may not be 'refused later'. Train again.", "model")]
    return []


runner = FunctionalModelRunner(on_train, on_predict, on_validate_train, on_validate_predict)
mean = Model(
    name="mean",
    config=SmallConfig,
    runner=runner,
    required_covariates=["rainfall"],
    allow_free_additional_continuous_covariates=True,
    max_prediction_periods=6,
)
mapped = Model(name="mapped", config=SmallConfig, runner=runner, required_covariates=["rainfall"], requires_geo=True)
weekly = Model(name="weekly", config=SmallConfig, runner=runner, period_type="weekly")
point = Model(
    name="point",
    config=SmallConfig,
    runner=FunctionalModelRunner(
        on_train, lambda config, model, historic, future, geo=None: future[KEYS].assign(prediction=1.5)
    ),
)
script = f"{shlex.quote(sys.executable)} -S -E script.py"
shell = Model(
    name="shell",
    config=SmallConfig,
    runner=ShellModelRunner(
        f"{script} train {{data_file}}",
        f"{script} predict {{future_file}} {{output_file}}",
        project=Project(folder=Path(__file__).parent, include=["script.py"]),
    ),
)
