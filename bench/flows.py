"""What a run costs beside the bare work: python bench/flows.py (needs a Prefect server; run.py starts one)."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

BENCH = Path(__file__).parent
ROWS = 1_000_000
NUMBERS = ["disease_cases", "rainfall", "mean_temperature", "humidity", "population"]


def _bare_flow() -> Callable[[], Awaitable[object]]:
    """An asynchronous Prefect flow of as many tasks as a training has, which do nothing."""
    from prefect import flow, task

    @task
    async def empty() -> None:
        """Nothing."""

    @flow(name="bare")
    async def bare() -> None:
        for _ in range(6):
            await empty()

    return bare


def overhead(rounds: int = 15) -> None:
    """A warm train run of a trivial model beside a bare asynchronous flow with as many tasks."""
    from trivial import make_small, trivial

    bare = _bare_flow()
    folder = Path(tempfile.mkdtemp())
    make_small(folder)
    config, data = trivial.config(), str(folder / "training.csv")

    async def both() -> tuple[list[float], list[float]]:
        ours, theirs = [], []
        for _ in range(rounds + 2):
            theirs.append(await _seconds(bare))
            ours.append(await _seconds(lambda: trivial.train(config, data)))
        return ours[2:], theirs[2:]

    ours, theirs = asyncio.run(both())
    _report("train, trivial model, against a bare async flow of 6 tasks", ours, theirs, 1.3)


async def _seconds(function: Callable[[], Awaitable[object]]) -> float:
    # The server records the events of one run after its end: without a pause that would be timed with the next.
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    await function()
    return time.perf_counter() - began


def _report(what: str, ours: list[float], theirs: list[float], limit: float) -> None:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    verdict = "ok" if ratio <= limit else "OVER"
    print(
        f"{what}: {statistics.median(ours):.3f} s / {statistics.median(theirs):.3f} s = {ratio:.2f} "
        f"(must be <= {limit}; min {min(ratios):.2f}, max {max(ratios):.2f}) {verdict}",
        flush=True,
    )


def large(rounds: int = 3) -> None:
    """A million rows from CSV to a stored model, beside pandas.read_csv and the same fit."""
    folder = Path(tempfile.mkdtemp())
    _make_large(folder / "large.csv")
    ours, theirs, grown = [], [], []
    for _ in range(rounds):
        theirs.append(float(_child("large_pandas", folder)[0]))
        seconds, growth = map(float, _child("large_flow", folder))
        ours.append(seconds)
        grown.append(growth)
    _report(
        f"train on {ROWS:,} rows x 5 numbers, against pandas.read_csv + the same fit (a regression per place)",
        ours,
        theirs,
        2.0,
    )
    memory = statistics.median(grown)
    verdict = "ok" if memory <= 3 else "OVER"
    print(f"  its peak memory above the idle process: {memory:.2f} x the frame (must be <= 3) {verdict}", flush=True)


def _make_large(file: Path) -> None:
    import numpy as np
    import pandas as pd

    months = [str(period) for period in pd.period_range("1980-01", periods=500, freq="M")]
    places = [f"PLACE_{number:05d}" for number in range(ROWS // 500)]
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"time_period": months * len(places), "location": np.repeat(places, 500)})
    for name in NUMBERS:
        frame[name] = random.normal(100, 20, ROWS).round(4)
    frame.to_csv(file, index=False)


def large_pandas(folder: Path) -> None:
    """In a process of its own: the bare work."""
    import pandas as pd
    from trivial import on_train_wide

    began = time.perf_counter()
    on_train_wide(None, pd.read_csv(folder / "large.csv"))
    print(time.perf_counter() - began)


def large_flow(folder: Path) -> None:
    """In a process of its own: the run, warm, and its peak memory as multiples of the frame."""
    import pandas as pd
    from trivial import make_small, wide

    make_small(folder)
    pd.read_csv(folder / "training.csv").assign(mean_temperature=1.0, humidity=1.0, population=1.0).to_csv(
        folder / "training.csv", index=False
    )
    wide.train(wide.config(), str(folder / "training.csv"))
    idle = _reset_peak()
    began = time.perf_counter()
    wide.train(wide.config(), str(folder / "large.csv"))
    seconds, peak = time.perf_counter() - began, _peak()
    frame = pd.read_csv(folder / "large.csv").memory_usage(deep=True).sum()
    print(seconds, (peak - idle) / frame)


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def history(count: int = 200, window: int = 9) -> None:
    """The last of many predictions on one model beside the first, each the median of a few.

    A bare flow before and after tells how much slower the Prefect server itself has become meanwhile.
    """
    from trivial import make_small, trivial

    folder = Path(tempfile.mkdtemp())
    make_small(folder)
    historic, future = str(folder / "training.csv"), str(folder / "future.csv")
    bare = _bare_flow()

    async def work() -> tuple[list[float], list[float], list[float]]:
        trained = await trivial.train(trivial.config(), historic)
        await trivial.predict(trained.artifact_id, historic, future)
        await bare()
        before = [await _seconds(bare) for _ in range(window)]
        ours = [await _seconds(lambda: trivial.predict(trained.artifact_id, historic, future)) for _ in range(count)]
        return before, ours, [await _seconds(bare) for _ in range(window)]

    before, ours, after = asyncio.run(work())
    _report(f"prediction {count} against prediction 1 on one model", ours[-window:], ours[:window], 1.1)
    print(f"  a bare flow after them against before: {statistics.median(after) / statistics.median(before):.2f}")


def start_up(rounds: int = 9) -> None:
    """`chapkit-flows --help`, with compiled byte code."""
    command = [str(Path(sys.executable).with_name("chapkit-flows")), "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        seconds.append(time.perf_counter() - began)
    middle = statistics.median(seconds[1:])
    print(f"chapkit-flows --help: {middle:.3f} s (must be <= 0.25) {'ok' if middle <= 0.25 else 'OVER'}", flush=True)


def _child(name: str, folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, __file__, name, str(folder)], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.split()[-2:]


if __name__ == "__main__":
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")
    sys.path.insert(0, str(BENCH))
    if sys.argv[1:2] in (["large_pandas"], ["large_flow"]):
        globals()[sys.argv[1]](Path(sys.argv[2]))
    else:
        for bench in [globals()[name] for name in sys.argv[1:]] or [start_up, overhead, large, history]:
            bench()
