"""Folds on clusters that somebody else runs, and processes that are killed in the middle of a backtest."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from clusters import dask_cluster, ray_cluster
from command_line import MODELS, write_tables
from server_api import eventually

from chapkit_flows import load_model, open_resources
from chapkit_flows.errors import BacktestFailed, InvalidSetting
from chapkit_flows.lineage.query import get_run
from chapkit_flows.upkeep.integrity import Scope, check

PERISHABLE = MODELS.with_name("perishable.py")
HOME = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME"
PLAN = {"periods": 2, "splits": 4, "pictures": False, "baselines": []}
CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A store and a database, data, and the folder in which the model writes and looks who is to be killed."""

    home: Path
    fates: Path
    data: Path

    @property
    def environment(self) -> dict[str, str]:
        return {HOME: str(self.home), "FATES": str(self.fates)}

    @property
    def origins(self) -> list[str]:
        """Up to which the folds of PLAN are trained."""
        periods = sorted(pd.read_csv(self.data, dtype=str)["time_period"].unique())
        return periods[-6:-2]

    def doom(self, origin: str, whom: str) -> None:
        (self.fates / origin).write_text(whom)

    def calls(self) -> list[tuple[str, int, dict[str, float]]]:
        """Origin, process and resources of the trainings so far; the list is emptied."""
        file = self.fates / "calls"
        lines = [line.split(";") for line in file.read_text().splitlines()] if file.exists() else []
        file.write_text("")
        return [(origin, int(process), ast.literal_eval(given)) for origin, process, given in lines]

    def backtest(self, name: str = "perishable", **runner: Any) -> Any:
        model: Any = load_model(f"{PERISHABLE}:{name}")
        flow = model.backtest.with_options(task_runner=model.task_runner(**runner))
        return flow(model.config(), str(self.data), plan=PLAN)


def make_site(folder: Path) -> Site:
    (folder / "fates").mkdir(parents=True)
    return Site(home=folder / "home", fates=folder / "fates", data=write_tables(folder / "tables")["training"])


@pytest.fixture
def site(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = make_site(tmp_path / "site")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster that runs, with workers that know where the store is."""

    kind: Literal["dask", "ray"]
    address: str
    site: Site


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(request: pytest.FixtureRequest, server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    site = make_site(tmp_path_factory.mktemp(request.param) / "site")
    with (
        pytest.MonkeyPatch.context() as environment,
        CLUSTERS[request.param](site.environment | {"CLUSTER": request.param}) as address,
    ):
        for name, value in site.environment.items():
            environment.setenv(name, value)
        yield Cluster(kind=request.param, address=address, site=site)


def test_cluster_by_address(cluster: Cluster) -> None:
    """A running cluster does the folds, each with what the model says it needs; a worker that is killed is made good.

    What was done is not done again, and a rerun does nothing.
    """
    site = cluster.site
    site.doom(site.origins[2], "worker once")
    done = site.backtest("demanding", kind=cluster.kind, address=cluster.address)
    assert {"done": 4, "reused": 0, "failed": 0} == done.folds
    calls = site.calls()
    assert sorted([*site.origins, site.origins[2]]) == sorted(origin for origin, _, _ in calls)
    assert os.getpid() not in {process for _, process, _ in calls}
    wanted = {"CPU": 2.0, "GPU": 1.0}
    for _, _, given in calls:
        assert wanted == {name: given[name] for name in wanted}
        assert given.get("MEMORY", given.get("memory")) == pytest.approx(1e8)
    again = site.backtest("demanding", kind=cluster.kind, address=cluster.address)
    assert (4, []) == (again.folds["reused"], site.calls())


def test_cluster_without_what_a_fold_needs(cluster: Cluster) -> None:
    """A fold that no worker has enough for fails the run with what to do, and does not wait for ever."""
    with pytest.raises(InvalidSetting, match=r"what a fold of the model needs: .*GPU|num_gpus=7"):
        cluster.site.backtest("greedy", kind=cluster.kind, address=cluster.address)
    assert [] == cluster.site.calls()


def test_worker_with_another_store(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that looks for the data in another store than the flow's, or keeps a forecast there, is told."""
    monkeypatch.setenv(HOME, str(tmp_path / "elsewhere"))
    runner = {"kind": cluster.kind, "address": cluster.address}
    with pytest.raises(BacktestFailed, match=r"is not in the store of the flow, .*/elsewhere/artifacts: the worker"):
        cluster.site.backtest("demanding", **runner)
    other = replace(cluster.site, data=tmp_path / "other.csv")
    other.data.write_text(cluster.site.data.read_text() + "\n")
    with pytest.raises(BacktestFailed, match=r"the worker that did it uses the store .*/site/home/artifacts"):
        other.backtest("demanding", **runner)
    assert [] == cluster.site.calls()


def test_killed_process_takes_no_other_fold_with_it(site: Site) -> None:
    """A fold that kills its process each time is a recorded failure; the others are done, and a rerun does that one."""
    site.doom(site.origins[1], "worker always")
    result = site.backtest(kind="processes", workers=2)
    assert {"done": 3, "reused": 0, "failed": 1} == result.folds
    run = get_run(open_resources().database, result.run_id)
    ((origin, reason),) = run.output("scores").metadata["failed"].items()
    assert (site.origins[1], True) == (origin, "was killed" in reason)
    (site.fates / site.origins[1]).unlink()
    site.calls()
    again = site.backtest(kind="processes", workers=2)
    assert {"done": 4, "reused": 3, "failed": 0} == again.folds
    assert [site.origins[1]] == [origin for origin, _, _ in site.calls()]


FLOW = """
import os, sys
from pathlib import Path
from chapkit_flows import load_model
if __name__ == "__main__":
    Path(os.environ["FATES"], "flow.pid").write_text(str(os.getpid()))
    model = load_model(sys.argv[1])
    plan = {"periods": 2, "splits": 4, "pictures": False, "baselines": []}
    flow = model.backtest.with_options(task_runner=model.task_runner(sys.argv[3], workers=1))
    flow(model.config(), sys.argv[2], plan=plan)
"""


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_killed_flow(site: Site, tmp_path: Path, kind: Literal["threads", "processes"]) -> None:
    """After kill -9 of the flow its processes end, the store is whole, and a rerun does the folds that are missing."""
    site.doom(site.origins[2], "flow")
    script = tmp_path / "script.py"
    script.write_text(FLOW)
    command = [sys.executable, str(script), f"{PERISHABLE}:perishable", str(site.data), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert -signal.SIGKILL == done.returncode, done.stderr
    calls = site.calls()
    assert site.origins[:3] == [origin for origin, _, _ in calls]
    process = calls[-1][1]
    assert eventually(lambda: is_gone(process), bool)
    assert [] == [found for checked in check(open_resources(), Scope(read_bytes=True)) for found in checked.findings]
    (site.fates / site.origins[2]).unlink()
    again = site.backtest()
    assert {"done": 4, "reused": 2, "failed": 0} == again.folds
    assert site.origins[2:] == [origin for origin, _, _ in site.calls()]


def is_gone(process: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    try:
        return "Z" == Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
