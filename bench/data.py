"""Reading a table beside pandas.read_csv, in time and in memory: python bench/data.py"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from chapkit_flows.data.panels import check_panel
from chapkit_flows.data.tables import read_table, write_csv

PLACES, PERIODS, ROUNDS = 1_000, 1_000, 9
NUMBERS = ["disease_cases", "rainfall", "mean_temperature", "humidity", "population"]


def make_table(path: Path) -> None:
    """A million rows of five numeric columns with all their digits."""
    rng = np.random.default_rng(0)
    months = [f"{1920 + step // 12}-{step % 12 + 1:02d}" for step in range(PERIODS)]
    places = np.repeat([f"OU_{place:04d}" for place in range(PLACES)], PERIODS)
    frame = pd.DataFrame({"time_period": months * PLACES, "location": places})
    for name in NUMBERS:
        frame[name] = rng.normal(100.0, 30.0, len(frame))
    write_csv(frame, path)


def read(path: Path, *, declared: bool = True) -> pd.DataFrame:
    """Read the table with its numeric columns declared, or found out."""
    with path.open("rb") as file:
        return read_table(file, media_type="text/csv", numeric=NUMBERS if declared else ())


def compare(path: Path) -> None:
    """Time each piece of work in turn, in rounds, so that a busy machine slows all of them."""
    frame = read(path)
    work: dict[str, Callable[[], object]] = {
        "pandas.read_csv": lambda: pd.read_csv(path),
        "read_table, numeric columns declared": lambda: read(path),
        "read_table, numeric columns found out": lambda: read(path, declared=False),
        "check_panel": lambda: check_panel(frame, role="data", required=NUMBERS, target=NUMBERS[0]),
    }
    wall: dict[str, list[float]] = {name: [] for name in work}
    cpu: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, function in work.items():
            began, used = time.perf_counter(), time.process_time()
            function()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
    bare, *others = work
    for name in others:
        print(
            f"{name} / {bare}: "
            f"{_ratio(wall, name, bare):.2f} of the time, {_ratio(cpu, name, bare):.2f} of the CPU time"
        )


def _ratio(taken: dict[str, list[float]], name: str, bare: str) -> float:
    return statistics.median(a / b for a, b in zip(taken[name], taken[bare], strict=True))


def peak() -> int:
    """The most memory this process has held so far, in bytes. (The rusage of a child begins with its parent's.)"""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def measure_memory(path: Path) -> None:
    """Print how far the peak of this process rises above its idle size, in frames. Run in a process of its own."""
    # Imports and thread pools of the first reading belong to the idle process.
    small = path.with_name("small.csv")
    with path.open() as lines:
        small.write_text("".join(next(lines) for _ in range(100)))
    read(small)
    idle = peak()
    frame = read(path)
    grown = peak() - idle
    size = int(frame.memory_usage(deep=True, index=False).sum())
    print(f"peak memory of read_table above idle: {grown / 2**20:.0f} MiB / frame {size / 2**20:.0f} MiB = ", end="")
    print(f"{grown / size:.2f} (must be <= 2.3)")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure_memory(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "large.csv"
            make_table(table)
            compare(table)
            subprocess.run([sys.executable, __file__, str(table)], check=True)
