"""Clusters of Dask and Ray that somebody else has started: real ones, on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from server_api import stop

_DASK_CODE = "import sys; from distributed.cli.dask_{0} import main; main(sys.argv[1:])"


@contextmanager
def dask_cluster(environment: Mapping[str, str], *, workers: int = 2) -> Iterator[str]:
    """The address of a scheduler with workers of two threads each, which are started again when they are killed."""
    pytest.importorskip("prefect_dask", reason="the extra dask is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        found = Path(folder) / "scheduler.json"
        options = ["--scheduler-file", str(found), "--host", "127.0.0.1", "--no-dashboard"]
        _start(stack, "scheduler", [*options, "--port", "0"], environment)
        _wait(found.exists)
        for number in range(workers):
            options = ["--scheduler-file", str(found), "--nthreads", "2", "--no-dashboard", "--memory-limit", "1GB"]
            own = ["--local-directory", f"{folder}/{number}", "--resources", "GPU=1"]
            _start(stack, "worker", [*options, *own], environment)
        distributed = pytest.importorskip("distributed")
        with distributed.Client(scheduler_file=str(found), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
            address = client.scheduler.address
        yield address


def _start(stack: ExitStack, what: str, options: list[str], environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-c", _DASK_CODE.format(what), *options]
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    stack.callback(stop, process)


@contextmanager
def ray_cluster(environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a head node of two processors and one graphics processor, which no machine need have."""
    pytest.importorskip("prefect_ray", reason="the extra ray is not installed")
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        port, client_port = first.getsockname()[1], second.getsockname()[1]
    # Not below pytest's folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
        command += ["--node-ip-address=127.0.0.1", f"--ray-client-server-port={client_port}", f"--temp-dir={folder}"]
        command += ["--num-cpus=2", "--num-gpus=1", "--include-dashboard=false", "--disable-usage-stats"]
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        try:
            _wait(lambda: _is_open(client_port))  # it is started last
            yield f"127.0.0.1:{port}"
        finally:
            stop(process)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(ready: object) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if ready():  # type: ignore[operator]
            return
        time.sleep(0.1)
    raise TimeoutError("the cluster did not start")
