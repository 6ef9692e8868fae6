"""What a backtest costs beside its model: `python bench/backtest.py [fan_out|overhead|rerun]` (needs a Prefect server).

Beside each figure of the clock stands one of the processor, which other programs of the machine falsify less.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

BENCH = Path(__file__).parent
FOLDS, SECONDS = 16, 1.0


def make_data(folder: Path) -> str:
    """Two places, twenty years."""
    months = [str(period) for period in pd.period_range("2000-01", "2019-12", freq="M")]
    rows = [{"time_period": month, "location": place} for place in ("A", "B") for month in months]
    pd.DataFrame(rows).assign(disease_cases=range(len(rows)), rainfall=1.5).to_csv(folder / "data.csv", index=False)
    return str(folder / "data.csv")


def run(kind: str, data: str, *, workers: int = 1, busy: float = 0.0, **plan: Any) -> tuple[float, float, Any]:
    """Seconds of the clock, seconds of this process's processor, and the result."""
    from busy import busy as model

    flow = model.backtest.with_options(task_runner=model.task_runner(kind, workers=workers))
    given = {"periods": 3, "pictures": False, "baselines": []} | plan
    began, used = time.perf_counter(), time.process_time()
    result = flow(model.config(seconds=busy, mark=time.time_ns()), data, plan=given)
    return time.perf_counter() - began, time.process_time() - used, result


def fan_out(folder: Path) -> None:
    """Equal folds that keep a processor busy: two processes beside one, and what this process does meanwhile."""
    data = make_data(folder)
    seconds, used = {}, 0.0
    for workers in (1, 2):
        children = _children()
        seconds[workers], used, _ = run("processes", data, workers=workers, busy=SECONDS, splits=FOLDS)
        print(
            f"  {FOLDS} folds of {SECONDS:g} s of processor on {workers} process(es): {seconds[workers]:.1f} s; "
            f"this process used {used:.2f} s, the others {_children() - children:.1f} s",
            flush=True,
        )
    gain = seconds[1] / seconds[2]
    print(f"fan-out on 2 processes: {gain:.2f} x one process (must be >= 1.8) {'ok' if gain >= 1.8 else 'UNDER'}")
    # What does not run side by side bounds the gain on a machine that has two processors to itself.
    total = FOLDS * SECONDS
    print(f"  by what this process does meanwhile it could be {(total + used) / (total / 2 + used):.2f} x")


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def overhead(folder: Path) -> None:
    """What each further fold of a model that does nothing costs."""
    data = make_data(folder)
    run("threads", data, splits=3)
    few, many = run("threads", data, splits=10), run("threads", data, splits=60)
    wall, cpu = ((many[n] - few[n]) / 50 * 1000 for n in (0, 1))
    verdict = "ok" if cpu <= 60 else "OVER"
    print(f"overhead per fold: {cpu:.0f} ms of processor (must be <= 60), {wall:.0f} ms by the clock {verdict}")


def rerun(folder: Path) -> None:
    """A finished backtest of 50 folds once more, with baselines and pictures."""
    from busy import busy as model

    data, plan = make_data(folder), {"periods": 3, "splits": 50}
    run("threads", data, splits=3)
    config, took = model.config(seconds=0.2), []
    for _ in range(2):
        began = time.perf_counter()
        result = model.backtest(config, data, plan=plan)
        took.append(time.perf_counter() - began)
    share = took[1] / took[0]
    print(
        f"rerun of a finished backtest of 50 folds of 0.2 s: {took[1]:.2f} s / {took[0]:.2f} s = {share:.1%} "
        f"(must be <= 5 %), {result.folds['reused']} reused {'ok' if share <= 0.05 else 'OVER'}"
    )


if __name__ == "__main__":
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")
    sys.path.insert(0, str(BENCH))
    multiprocessing.freeze_support()
    for name in sys.argv[1:] or ["fan_out", "overhead", "rerun"]:
        with tempfile.TemporaryDirectory() as place:
            globals()[name](Path(place))
