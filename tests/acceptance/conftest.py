"""The repository as a user deploys it: a copy, a server, saved configs, deployments and a worker."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_api import connect, stop
from sites import ROOT, Site, run_program, script

SKIPPED = shutil.ignore_patterns(
    ".git", ".venv*", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__", "tests", "demo", "dist"
)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository: nothing that a test makes may land in the real one."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("checkout") / "chapkit-flows", ignore=SKIPPED))


@pytest.fixture(scope="module")
def site(server: str, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example model deployed as the README says, twice, with a worker that waits for runs.

    It is gone before other tests run: while a worker polls it, a busy server on SQLite can stand still for the
    minute that Prefect lets a writer wait.
    """
    home = tmp_path_factory.mktemp("site")
    environment = os.environ | {
        "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME": str(home / "chapkit-flows"),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }

    def run(*arguments: str) -> str:
        return run_program([script(arguments[0]), *arguments[1:]], folder=checkout, environment=environment)

    run("prefect", "work-pool", "create", "forecasts", "--type", "process", "--overwrite")  # another site had it
    run("chapkit-flows", "blocks", "apply", "blocks/")
    deployments = tuple(run("prefect", "--no-prompt", "deploy", "--all") for _ in range(2))
    log = home / "worker.log"
    with log.open("wb") as sink, connect(server) as api:
        worker = subprocess.Popen(
            [script("prefect"), "worker", "start", "--pool", "forecasts"],
            cwd=checkout,
            env=environment,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Site(
                api=api,
                folder=checkout,
                home=home / "chapkit-flows",
                environment=environment,
                deployments=deployments,
            )
        finally:
            stop(worker)
