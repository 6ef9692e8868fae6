"""Run all benchmarks against one local Prefect server: python bench/run.py [flows|data|store|lineage|backtest ...]

A part of one is named after a colon: `store:PART`, `lineage:graph`; `make bench PARTS="lineage:search store"`.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BENCH = Path(__file__).parent
ALL = (
    "flows",
    "cold_start",
    "data",
    "store",
    "lineage",
    "upkeep",
    "scores",
    "writers",
    "blocks",
    "promotion",
    "backtest",
)


@contextmanager
def local_server(home: Path) -> Iterator[dict[str, str]]:
    """A Prefect server of its own, and the environment that leads to it and to a fresh store and database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # With byte code, as an installation has it, wherever this is told to write none.
    left_out = ("PREFECT_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # With smaller batches a server on SQLite answers 503 now and then, and clients wait for two seconds.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
        "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME": str(home / "chapkit-flows"),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/api"
    try:
        _wait(url, process)
        yield environment | {"PREFECT_API_URL": url}
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("the Prefect server did not start")


if __name__ == "__main__":
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, local_server(Path(folder)) as variables:
        for name in sys.argv[1:] or ALL:
            print(f"\n{name}", flush=True)
            script, *parts = name.split(":")
            subprocess.run([sys.executable, BENCH / f"{script}.py", *parts], env=variables, check=True)
