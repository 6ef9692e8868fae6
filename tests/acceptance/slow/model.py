"""Models whose runs stand still at a step, after leaving their process ids in a folder."""

import os
import shlex
import sys
import time
from pathlib import Path

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig, ShellModelRunner
from chapkit_flows.models.workspace import Project


class SlowConfig(ModelConfig):
    """Where a run stands still, and the folder in which it says so."""

    step: str = ""
    marks: str = ""


def stand_still(config, step):
    mark = Path(config.marks) / f"{step}.pid"
    if config.step == step and not mark.exists():  # not again, when the run is repeated
        mark.write_text(str(os.getpid()))
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and not mark.with_name("go").exists():
            time.sleep(0.1)


class Trained:
    """A trained model that may take for ever to be written."""

    def __init__(self, config):
        self.config = config

    def __reduce__(self):
        stand_still(self.config, "store")
        return dict, ()


def on_train(config, data, geo=None):
    stand_still(config, "fit")
    return Trained(config) if config.step == "store" else {"mean": 1.0}


def on_predict(config, model, historic, future, geo=None):
    return future[["time_period", "location"]].assign(prediction=1.0)


# The child does not hear a polite signal, and would outlive its parent.
SCRIPT = """
import os, pathlib, re, subprocess, sys
import time
config = pathlib.Path("config.yml").read_text()
marks = pathlib.Path(re.search("marks: (.*)", config)[1].strip())
pathlib.Path("half.txt").write_text("half of the work")
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-S", "-E", "-c", deaf], stdout=subprocess.PIPE)
child.stdout.readline()
(marks / "child.pid").write_text(str(child.pid))
(marks / "fit.pid").write_text(str(os.getpid()))
time.sleep(600)
"""
command = f"{shlex.quote(sys.executable)} -S -E -c {shlex.quote(SCRIPT)}"
slow = Model(name="slow", config=SlowConfig, runner=FunctionalModelRunner(on_train, on_predict))
commanded = Model(
    name="slow-commands",
    config=SlowConfig,
    runner=ShellModelRunner(command, command, project=Project(folder=Path(__file__).parent, include=["nothing"])),
)
train, predict, train_commanded = slow.train, slow.predict, commanded.train

if __name__ == "__main__":
    commanded.train.serve(name="served")
