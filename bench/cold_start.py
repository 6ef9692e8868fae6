"""From `prefect flow-run execute` to the first line of the user's code: python bench/cold_start.py (needs a server).

Each start is a process of its own, as a worker makes one for each run. CPU time is told beside the wall clock, which a
busy machine stretches.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

BENCH = Path(__file__).parent
LIMIT = 1.15
BARE = """
from prefect import flow
{imports}

@flow(name="cold-bare")
async def bare(data: str = ""):
    {body}
    import os, time
    print("FIRST", time.process_time(), time.time() - float(os.environ["BEGAN"]), flush=True)
"""
OURS = '''
import os, time
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class ColdConfig(ModelConfig):
    """No settings."""

def on_train(config, data, geo=None):
    print("FIRST", time.process_time(), time.time() - float(os.environ["BEGAN"]), flush=True)
    return 1

cold = Model(name="cold", config=ColdConfig, runner=FunctionalModelRunner(on_train, lambda *_: None))
'''


def main(rounds: int = 7) -> None:
    """Compare a training with a bare flow, and with a bare flow that reads the same table with pandas."""
    import asyncio

    from trivial import make_small

    folder = Path(tempfile.mkdtemp())
    make_small(folder)
    data = str(folder / "training.csv")
    (folder / "bare.py").write_text(BARE.format(imports="", body="pass"))
    (folder / "table.py").write_text(BARE.format(imports="import pandas", body="pandas.read_csv(data)"))
    (folder / "ours.py").write_text(OURS)
    entrypoints = {"bare": "bare.py:bare", "table": "table.py:bare", "ours": "ours.py:cold.train"}
    deployed = asyncio.run(_deploy(folder, entrypoints))
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in entrypoints}
    for _ in range(rounds + 1):
        for name, identity in deployed.items():
            parameters = {"data": data} | ({"config": {}} if name == "ours" else {})
            seen[name].append(_start(asyncio.run(_create(identity, parameters))))
    cpu = {name: statistics.median(pair[0] for pair in pairs[1:]) for name, pairs in seen.items()}
    wall = {name: statistics.median(pair[1] for pair in pairs[1:]) for name, pairs in seen.items()}
    for name, what in (("bare", "a bare flow"), ("table", "a bare flow that reads the table with pandas")):
        ratio = cpu["ours"] / cpu[name]
        verdict = ("ok" if ratio <= LIMIT else "OVER") if name == "table" else ""
        print(
            f"cold start to the first user line, against {what}: {cpu['ours']:.2f} s / {cpu[name]:.2f} s CPU = "
            f"{ratio:.2f} (must be <= {LIMIT}) {verdict}; wall clock {wall['ours']:.2f} s / {wall[name]:.2f} s",
            flush=True,
        )


async def _deploy(folder: Path, entrypoints: dict[str, str]) -> dict[str, uuid.UUID]:
    from prefect import flow

    deployed = {}
    for name, entrypoint in entrypoints.items():
        loaded = await flow.from_source(source=str(folder), entrypoint=entrypoint)
        deployment = await loaded.to_deployment(name="cold")
        deployed[name] = await deployment.apply()
    return deployed


async def _create(deployment: uuid.UUID, parameters: dict[str, object]) -> uuid.UUID:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        return (await client.create_flow_run_from_deployment(deployment, parameters=parameters)).id


def _start(flow_run: uuid.UUID) -> tuple[float, float]:
    """CPU and wall-clock seconds until the user's first line."""
    import time

    done = subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "execute", str(flow_run)],
        env=os.environ | {"BEGAN": str(time.time())},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIRST ")]
    if not lines:
        raise SystemExit(done.stdout)
    return float(lines[0].split()[1]), float(lines[0].split()[2])


if __name__ == "__main__":
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")
    sys.path.insert(0, str(BENCH))
    main(*map(int, sys.argv[1:]))
