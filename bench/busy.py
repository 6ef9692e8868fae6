"""A model that keeps a processor busy for as long as its config says."""

import time

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig


class BusyConfig(ModelConfig):
    """How long, and a mark that makes a config one of its own."""

    seconds: float = 0.0
    mark: int = 0


def on_train(config, data, geo=None):
    """The mean of the target, at leisure."""
    until = time.process_time() + config.seconds
    while time.process_time() < until:
        sum(range(1000))
    return {"mean": float(data["disease_cases"].mean())}


def on_predict(config, model, historic, future, geo=None):
    """Around the mean everywhere."""
    return future[["time_period", "location"]].assign(
        **{f"sample_{number}": model["mean"] + number for number in range(10)}
    )


busy = Model(name="busy", config=BusyConfig, runner=FunctionalModelRunner(on_train, on_predict))
