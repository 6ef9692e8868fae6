"""Train and predict again and again as real flow runs, each killed at another point: flow_kill_points.py WORK FOLDER

WORK is `train` or `predict`. A child is forked for each point; its home is the folder of that name, a copy of
FOLDER/template. For a prediction that is a home in which a model was trained. The last line says how each ended.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from command_line import model

from chapkit_flows import Model, load_model
from chapkit_flows.artifacts.backends import LocalBackend
from chapkit_flows.flows import session, steps
from chapkit_flows.lineage import record
from chapkit_flows.models.functional import FunctionalModelRunner

HOME = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME"
MODEL = "mean"
# What a run imports; each child would do it again.
IMPORTED_LATE = ("prefect.engine", "prefect.flow_engine", "prefect.task_engine", "prefect.utilities.visualization")


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that every run makes; a process can be killed before it, and after it.

    Attributes:
        step: Of the flow, as a user sees it.
        owner: The module or class in which the callers look it up.
        times: How often it is made.
        moments: Leaves out those that are the same as one of another call.
    """

    step: str
    owner: Any
    name: str
    times: int = 1
    moments: Sequence[str] = ("before", "after")


# Within `finish` all statements are sent and nothing is committed once the metrics are.
_RECORD = (Call(step="record", owner=session, name="finish"), Call(step="record", owner=record, name="_record_metrics"))
_PUBLISH = Call(step="publish", owner=steps, name="publish_summary")
CALLS: Mapping[str, Sequence[Call]] = {
    "train": (
        Call(step="begin", owner=session, name="begin"),
        Call(step="load data", owner=steps, name="parse_table"),
        Call(step="load data", owner=steps, name="keep"),
        Call(step="validate", owner=steps, name="check_training"),
        Call(step="fit", owner=FunctionalModelRunner, name="on_train"),
        Call(step="store the model", owner=steps, name="save"),
        # The mark of the format, data, model; then the manifests of both, and of the run.
        Call(step="bytes and manifests", owner=LocalBackend, name="publish", times=6, moments=["before"]),
        *_RECORD,
        _PUBLISH,
    ),
    "predict": (
        Call(step="begin", owner=session, name="begin"),
        Call(step="load the model", owner=steps, name="load_training"),
        Call(step="load data", owner=steps, name="parse_table", times=2),
        Call(step="load data", owner=steps, name="keep", times=2),
        Call(step="validate", owner=steps, name="check_prediction"),
        Call(step="predict", owner=steps, name="load"),
        Call(step="predict", owner=FunctionalModelRunner, name="on_predict"),
        Call(step="store the prediction", owner=steps, name="save"),
        Call(step="store the prediction", owner=steps, name="render_png"),
        # Future data (the historic is that of the training), prediction, plot; the manifests of these and of the run.
        Call(step="bytes and manifests", owner=LocalBackend, name="publish", times=7, moments=["before"]),
        *_RECORD,
        _PUBLISH,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a run is killed."""

    call: Call
    time: int
    moment: str

    def __str__(self) -> str:
        return f"{self.call.step}, {self.moment} {self.call.name} {self.time}".replace(" ", "-").replace(",", "")

    def arm(self) -> None:
        """Make this process die here."""
        inner, count = getattr(self.call.owner, self.call.name), 0

        def reached(moment: str) -> None:
            if (count, moment) == (self.time, self.moment):
                os.kill(os.getpid(), signal.SIGKILL)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            reached("before")
            result = inner(*arguments, **named)
            reached("after")
            return result

        async def call_async(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            reached("before")
            result = await inner(*arguments, **named)
            reached("after")
            return result

        setattr(self.call.owner, self.call.name, call_async if inspect.iscoroutinefunction(inner) else call)


def points_of(work: str) -> list[Point]:
    """All points of a flow."""
    return [
        Point(call=call, time=time, moment=moment)
        for call in CALLS[work]
        for time in range(1, call.times + 1)
        for moment in call.moments
    ]


def run_flow(work: str, small: Model, tables: Path, trained: str | None) -> Any:
    """One flow run, as a script makes it."""
    files = {name: str(tables / f"{name}.csv") for name in ("training", "historic", "future")}
    if work == "train":
        return small.train(small.config(), files["training"])
    return small.predict(str(trained), files["historic"], files["future"])


def run_child(home: Path, work: Callable[[], object]) -> int:
    """Fork, do the work with a home of its own or die at it, and say how it ended."""
    child = os.fork()
    if child == 0:
        os.environ[HOME] = str(home)
        code = 1
        try:
            work()
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    work, folder = sys.argv[1], Path(sys.argv[2])
    template = folder / "template"
    trained = (template / "trained").read_text() if work == "predict" else None
    # Nothing may speak to the server before the forks: a child has none of its parent's threads.
    small = load_model(model(MODEL))
    for name in IMPORTED_LATE:
        import_module(name)
    endings = []
    for point in points_of(work):
        home = Path(shutil.copytree(template, folder / str(point)))

        def killed(point: Point = point) -> None:
            point.arm()
            run_flow(work, small, folder / "tables", trained)

        endings.append((str(point), run_child(home, killed)))
    print(json.dumps(endings))


if __name__ == "__main__":
    main()
