"""`blocks plan` over many documents, beside bare listing of the same blocks: python bench/blocks.py [COUNT]"""

from __future__ import annotations

import contextlib
import io
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chapkit_flows.cli.main import main as command_line

COUNT, REPEATS, SECONDS = 200, 7, 2.0
MODEL = """
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class PlannedConfig(ModelConfig):
    n_lags: int = 3
    weights: dict[str, float] = {}

planned = Model(name="planned", config=PlannedConfig, runner=FunctionalModelRunner(print, print))
"""
DOCUMENT = """\
block_type_slug: planned-config
name: n{number:03}
model: ../model.py:planned
fields: {{n_lags: {number}, weights: {{rain: 0.5, heat: 1.5}}}}   # of place {number}
"""
LISTING = """
import asyncio
from prefect.client.orchestration import get_client

async def work():
    async with get_client() as client:
        return await client.read_block_documents_by_type("planned-config", include_secrets=True)

assert len(asyncio.run(work())) == {count}
"""


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor, that a program takes from start to end."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(count: int) -> None:
    """Apply the documents, then plan them again and again."""
    with tempfile.TemporaryDirectory() as folder:
        blocks = Path(folder) / "blocks"
        blocks.mkdir()
        (blocks.parent / "model.py").write_text(MODEL)
        for number in range(count):
            (blocks / f"{number:03}.yaml").write_text(DOCUMENT.format(number=number))
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            assert command_line(["blocks", "apply", str(blocks)]) == 0
        print(f"blocks apply of {count} new documents: {time.perf_counter() - began:.1f} s")
        plan = [sys.executable, "-m", "chapkit_flows.cli.main", "blocks", "plan", str(blocks), "--exit-code"]
        listing = [sys.executable, "-c", LISTING.format(count=count)]
        runs = [(timed(listing), timed(plan)) for _ in range(REPEATS + 1)][1:]
    bare, bare_cpu = (statistics.median(run[0][part] for run in runs) for part in (0, 1))
    wall, cpu = (statistics.median(run[1][part] for run in runs) for part in (0, 1))
    print(f"bare listing of {count} blocks: {bare:.2f} s, processor {bare_cpu:.2f} s")
    verdict = "ok" if wall <= SECONDS else "OVER"
    print(
        f"blocks plan over {count} documents: {wall:.2f} s (must be <= {SECONDS:.0f}), processor {cpu:.2f} s; "
        f"{wall / bare:.2f} and {cpu / bare_cpu:.2f} of bare listing {verdict}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
