"""What scoring costs: `python bench/scores.py`. 100 places, 12 horizons, 1 000 samples, 50 folds, every metric.

CPU time is measured, and the peak of memory of this process; the forecasts of a fold are made before its clock runs.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

from chapkit_flows.evaluation.metrics import METRICS
from chapkit_flows.evaluation.scores import learn_yardstick, score_split, summarise
from chapkit_flows.evaluation.splits import SplitPlan, rolling_origins

PLACES, HORIZONS, SAMPLES, FOLDS = 100, 12, 1_000, 50


def make_truth() -> pd.DataFrame:
    """Monthly counts of as many periods as the folds need, after ten years to learn from."""
    random = np.random.default_rng(0)
    periods = [f"{1990 + month // 12}-{month % 12 + 1:02d}" for month in range(120 + HORIZONS + FOLDS)]
    keys = pd.MultiIndex.from_product([[f"OU_{place:03d}" for place in range(PLACES)], periods])
    frame = keys.to_frame(index=False, name=["location", "time_period"])
    return frame.assign(cases=random.negative_binomial(2, 0.02, len(frame)).astype("float64"))


def peak() -> int:
    """The most memory this process has held so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def month_of(period: str) -> int:
    """The position in the year."""
    return int(period[5:])


def main() -> None:
    """Score the folds one by one, and print what it took."""
    truth = make_truth()
    splits = rolling_origins(sorted(truth["time_period"].unique()), SplitPlan(n_periods=HORIZONS, n_splits=FOLDS))
    random = np.random.default_rng(1)
    idle, wall, cpu, tables = peak(), 0.0, 0.0, []
    for split in splits:
        keys = split.testing(truth)[["time_period", "location"]]
        samples = random.negative_binomial(2, 0.02, (len(keys), SAMPLES)).astype("float64")
        names = [f"sample_{number}" for number in range(SAMPLES)]
        predictions = pd.concat([keys, pd.DataFrame(samples, columns=names)], axis=1)
        began, used = time.perf_counter(), time.process_time()
        yardstick = learn_yardstick(split.training(truth), target="cases", season_of=month_of)
        tables.append(score_split(predictions, truth, target="cases", split=split, yardstick=yardstick))
        wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - used
    began, used = time.perf_counter(), time.process_time()
    scores = pd.concat(tables, ignore_index=True)
    overall = summarise(scores)
    by_horizon = summarise(scores, ["horizon"])
    wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - used
    print(f"{len(scores)} rows x {SAMPLES} samples, {len(METRICS)} metrics, {len(overall) + len(by_horizon)} means")
    print(f"scoring: {cpu:.1f} s of CPU time, {wall:.1f} s (must be <= 10 s)")
    print(f"peak memory: {peak() / 2**20:.0f} MiB, {(peak() - idle) / 2**20:.0f} MiB above idle (must be <= 1024)")


if __name__ == "__main__":
    main()
