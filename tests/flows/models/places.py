"""Models that are trained for each place; they write down for which, and fail for the one that FAIL_FOR names."""

import os
import shlex
import signal
import sys
from pathlib import Path

from chapkit_flows import BaseModelRunner, FunctionalModelRunner, Model, ModelConfig, ShellModelRunner
from chapkit_flows.models.workspace import Project

KEYS = ["time_period", "location"]


class PlacedConfig(ModelConfig):
    """Settings of the models that are trained for each place."""

    shift: float = 0.0


def note(word, data):
    (place,) = data["location"].unique()
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(f"{word} {place}\n")
    if place in os.environ.get("FAIL_FOR", "").split(","):
        raise ZeroDivisionError(f"no rain fell in {place}")
    killed = os.environ.get("KILLED")
    if place == os.environ.get("KILL_AT") and not (killed and Path(killed).exists()):
        if killed:
            Path(killed).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def on_train(config, data, geo=None):
    note("train", data)
    return float(data["disease_cases"].mean()) + config.shift


def on_update(config, model, data, geo=None):
    note("update", data)
    return model + 1


def on_predict(config, model, historic, future, geo=None):
    note("predict", future)
    assert list(future["location"].unique()) == list(historic["location"].unique())
    return future[KEYS].assign(**{f"sample_{number}": model + number for number in range(3)})


class Learner(BaseModelRunner):
    """The same as a class."""

    def on_train(self, config, data, geo=None):
        return {"mean": on_train(config, data, geo)}

    async def on_predict(self, config, model, historic, future, geo=None):
        return on_predict(config, model["mean"], historic, future, geo)


def make(name, runner):
    return Model(
        name=name,
        config=PlacedConfig,
        runner=runner,
        required_covariates=["rainfall"],
        per_place=True,
        metadata={"author": "An office"},
    )


script = f"{shlex.quote(sys.executable)} -S -E place_script.py"
placed_function = make("placed_function", FunctionalModelRunner(on_train, on_predict, on_update=on_update))
placed_class = make("placed_class", Learner())
placed_shell = make(
    "placed_shell",
    ShellModelRunner(
        f"{script} train {{data_file}}",
        f"{script} predict {{future_file}} {{output_file}}",
        project=Project(folder=Path(__file__).parent, include=["place_script.py"]),
    ),
)
everywhere = Model(
    name="everywhere",
    config=PlacedConfig,
    required_covariates=["rainfall"],
    runner=FunctionalModelRunner(
        lambda config, data, geo=None: data.groupby("location")["disease_cases"].mean().to_dict(),
        lambda config, model, historic, future, geo=None: future[KEYS].assign(
            **{f"sample_{number}": future["location"].map(model) + number for number in range(3)}
        ),
    ),
)
