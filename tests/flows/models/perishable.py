"""A model that kills the process that does a fold, or the flow's, and writes down what it was given.

FATES is a folder: a file there that is named after an origin says who is killed when the model is trained up to it.
"""

import os
import signal
import sys
from pathlib import Path

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

KEYS = ["time_period", "location"]


class PerishableConfig(ModelConfig):
    """Settings of the perishable model."""

    mark: int = 0


def given():
    """What the cluster has set aside for this fold."""
    if os.environ.get("CLUSTER") == "ray":
        return sys.modules["ray"].get_runtime_context().get_assigned_resources()
    if os.environ.get("CLUSTER") == "dask":
        worker = sys.modules["distributed"].get_worker()
        return next(iter(worker.state.executing)).resource_restrictions
    return {}


def on_train(config, data, geo=None):
    origin = data["time_period"].max()
    fates = Path(os.environ["FATES"])
    with (fates / "calls").open("a") as calls:
        calls.write(f"{origin};{os.getpid()};{given()}\n")
    fate = fates / origin
    whom = fate.read_text() if fate.exists() else ""
    if whom == "worker once":
        fate.unlink()
    if whom.startswith("worker"):
        os.kill(os.getpid(), signal.SIGKILL)
    if whom == "flow":
        os.kill(int((fates / "flow.pid").read_text()), signal.SIGKILL)
        signal.pause()  # until it ends with the flow
    return data.groupby("location")["disease_cases"].mean().to_dict()


def on_predict(config, model, historic, future, geo=None):
    level = future["location"].map(model)
    return future[KEYS].assign(**{f"sample_{number}": level + number for number in range(5)})


runner = FunctionalModelRunner(on_train, on_predict)
perishable = Model(name="perishable", config=PerishableConfig, runner=runner)
demanding = Model(
    name="demanding",
    config=PerishableConfig,
    runner=runner,
    resources={"cpus": 2, "memory": "100 MB", "gpus": 1},
)
greedy = Model(name="greedy", config=PerishableConfig, runner=runner, resources={"gpus": 7})
