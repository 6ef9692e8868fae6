"""The command `deploy`: an entry of prefect.yaml, and what is refused before one is written."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import MODELS, CommandLine
from prefect.settings import PREFECT_API_URL, temporary_settings
from server_api import connect

from chapkit_flows.cli.prefect_yaml import Entry, PrefectYaml, Schedule

# Its config class is of this file alone: another test's would be overridden by each copy that is imported here.
MODEL = '''
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class DeployedConfig(ModelConfig):
    """Settings of a model that is deployed."""

def on_train(config, data, geo=None):
    return 1

def on_predict(config, model, historic, future, geo=None):
    return future[["time_period", "location"]].assign(sample_0=model)

mean = Model(name="mean", config=DeployedConfig, runner=FunctionalModelRunner(on_train, on_predict))
'''
AUTHORED = """\
# The team's own words.
name: team   # trailing words

pull: []
definitions:
  pool: &pool
    name: {pool}
  # shared
  nightly: &nightly
    timeout: 60
deployments:
  # the first
  - name: other
    entrypoint: "flows/other.py:other"   # quoted
    work_pool: *pool
    parameters: {{b: 1, a: [1, 2]}}

  - name: small-retrain
    entrypoint: old/small.py:mean.retrain
    description: Our words.
    work_pool: *pool
    parameters:
      config: {{}}
      data: old.csv  # where it was
      extra: 1
    job: *nightly
    schedules:
      # on Mondays
      - slug: weekly
        cron: 0 6 * * 1
        timezone: Europe/Oslo
        active: false
# the end
"""


@pytest.fixture
def pool(server: str) -> Iterator[str]:
    """A work pool without workers."""
    name = f"pool-{uuid.uuid4().hex[:8]}"
    with connect(server) as api:
        api.post("/work_pools/", json={"name": name, "type": "process"}).raise_for_status()
        yield name
        api.delete(f"/work_pools/{name}").raise_for_status()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model in it, as the working directory."""
    (tmp_path / "small.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# In production each command is a process of its own; here several import copies of one model.
pytestmark = pytest.mark.filterwarnings("ignore:Type .* that matches existing registered type")


def _entries(site: Path) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in yaml.safe_load((site / "prefect.yaml").read_text())["deployments"]}


def test_writes_an_entry(site: Path, pool: str, cli: CommandLine) -> None:
    """The first entry makes the file; it says all that a run needs, and refers to configs by slug only."""
    (site / "data.csv").touch()
    ended = cli("deploy", "small.py:mean", "--schedule", "0 6 * * 1", "--data", "data.csv", "--pool", pool)
    assert (0, True) == (ended.code, "prefect --no-prompt deploy --name mean-retrain" in ended.out)
    entry = _entries(site)["mean-retrain"]
    assert "small.py:mean.retrain" == entry["entrypoint"]
    assert {"name": pool} == entry["work_pool"]
    assert {"config": {}, "data": "data.csv"} == entry["parameters"]
    assert [{"slug": "mean-retrain", "cron": "0 6 * * 1", "timezone": "UTC"}] == entry["schedules"]
    assert {"limit": 1, "collision_strategy": "ENQUEUE"} == entry["concurrency_limit"]
    assert f"prefect worker start --pool {pool}" in ended.err


def test_warns_of_a_password(site: Path, pool: str, cli: CommandLine) -> None:
    """A URI with a password is deployed as it is given, with a warning that does not repeat it."""
    uri = "https://ana:canary-7c1d@example.org/data.csv"
    ended = cli("deploy", "small.py:mean", "--data", uri, "--pool", pool)
    assert uri == _entries(site)["mean-retrain"]["parameters"]["data"]
    assert "warning: --data https://***@example.org/data.csv holds a password" in ended.err
    assert "canary-7c1d" not in ended.err


def test_second_run_changes_nothing(site: Path, pool: str, cli: CommandLine) -> None:
    """The same arguments leave every byte of the file, and say so."""
    command = ("deploy", "small.py:mean", "--schedule", "@weekly", "--data", "data.csv", "--pool", pool)
    assert cli(*command, "--json").json["changed"]
    written = (site / "prefect.yaml").read_bytes()
    again = cli(*command)
    assert written == (site / "prefect.yaml").read_bytes()
    assert "Nothing to change." in again.out
    assert not cli(*command, "--json").json["changed"]


def test_dry_run_writes_nothing(site: Path, pool: str, cli: CommandLine) -> None:
    """With --dry-run the difference is printed, and no file is made."""
    ended = cli("deploy", "small.py:mean", "--pool", pool, "--dry-run")
    assert "+    entrypoint: small.py:mean.retrain" in ended.out
    assert not (site / "prefect.yaml").exists()


def test_predicts_with_the_latest(site: Path, pool: str, cli: CommandLine) -> None:
    """A predict deployment uses the newest trained model, whichever that is when it runs."""
    inputs = ("--historic", "h.csv", "--future", "f.csv", "--pool", pool)
    assert 0 == cli("deploy", "small.py:mean", "--flow", "predict", *inputs).code
    entry = _entries(site)["mean-predict"]
    assert {"model": "mean@latest", "historic": "h.csv", "future": "f.csv"} == entry["parameters"]
    assert "concurrency_limit" not in entry


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_keeps_what_its_author_wrote(site: Path, pool: str, cli: CommandLine, newline: str) -> None:
    """An update changes the lines it must, and no comment, anchor, quote, order or end of line beside them."""
    before = AUTHORED.format(pool=pool).replace("\n", newline)
    (site / "prefect.yaml").write_bytes(before.encode())
    options = ("--name", "small-retrain", "--schedule", "0 7 * * 1", "--data", "new.csv")
    ended = cli("deploy", "small.py:mean", *options)
    assert 0 == ended.code
    expected = before.replace("old/small.py", "small.py").replace("old.csv", "new.csv").replace("0 6 *", "0 7 *")
    assert expected == (site / "prefect.yaml").read_bytes().decode()
    assert "'weekly' is switched off" in ended.err


def test_adds_beside_what_its_author_wrote(site: Path, pool: str, cli: CommandLine) -> None:
    """A new entry comes last, on the work pool of the others, by the alias that the file has for it."""
    before = AUTHORED.format(pool=pool)
    (site / "prefect.yaml").write_text(before)
    assert 0 == cli("deploy", "small.py:mean", "--data", "new.csv").code
    after = (site / "prefect.yaml").read_text()
    assert after.startswith(before)
    assert "work_pool: *pool" in after.removeprefix(before)
    assert ["other", "small-retrain", "mean-retrain"] == list(_entries(site))


def test_shared_parameters_stay_those_of_the_others(tmp_path: Path) -> None:
    """What two entries share by an alias is not changed for the other one."""
    file = tmp_path / "prefect.yaml"
    file.write_text(
        "deployments:\n  - name: a\n    entrypoint: m.py:a.train\n    parameters: &p\n      data: x\n"
        "  - name: b\n    entrypoint: m.py:b.train\n    parameters: *p\n"
    )
    document = PrefectYaml(file)
    document.put(Entry(name="a", entrypoint="m.py:a.train", parameters={"data": "y"}))
    document.write(document.render())
    assert {"a": {"data": "y"}, "b": {"data": "x"}} == {n: e["parameters"] for n, e in _entries(tmp_path).items()}


def test_schedule_without_slug_gets_one(tmp_path: Path) -> None:
    """A cron schedule without a slug, which each deploying would add once more, is the one that is updated."""
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments:\n- name: a\n  entrypoint: m.py:a.train\n  schedules:\n  - cron: 0 1 * * *\n")
    document = PrefectYaml(file)
    document.put(Entry(name="a", entrypoint="m.py:a.train", parameters={}, schedule=Schedule(cron="0 2 * * *")))
    document.write(document.render())
    assert [{"slug": "a", "cron": "0 2 * * *", "timezone": "UTC"}] == _entries(tmp_path)["a"]["schedules"]


def test_deploys_a_backtest(site: Path, pool: str, cli: CommandLine) -> None:
    """A backtest can be deployed: it takes a config and data as a training does, and many may run at once."""
    ended = cli("deploy", "small.py:mean", "--flow", "backtest", "--data", "data.csv", "--pool", pool)
    assert 0 == ended.code, ended.err
    entry = _entries(site)["mean-backtest"]
    assert ("small.py:mean.backtest", {"config": {}, "data": "data.csv"}) == (entry["entrypoint"], entry["parameters"])
    assert "concurrency_limit" not in entry


REFUSED: dict[str, tuple[list[str], str]] = {
    "cron that never fires": (["--schedule", "0 0 30 2 *", "--data", "d"], "never fires"),
    "no cron": (["--schedule", "every monday", "--data", "d"], "Invalid cron string"),
    "zone": (["--schedule", "0 6 * * 1", "--timezone", "Mars/Phobos", "--data", "d"], "Mars/Phobos"),
    "zone alone": (["--timezone", "Europe/Oslo"], "--timezone goes with --schedule"),
    "schedule without data": (["--schedule", "0 6 * * 1"], "Pass --data URI"),
    "predict without future": (["--flow", "predict", "--schedule", "@daily", "--historic", "h"], "Pass --future URI"),
    "option of another flow": (["--flow", "predict", "--data", "d"], "--data: the flow predict does not take that"),
    "config of another type": (["--config", "other/x"], "are of type deployed-config"),
    "no such config": (["--config", "nothing"], "There is no saved config 'nothing'"),
    "no such pool": (["--pool", "nowhere"], "prefect work-pool create nowhere --type process"),
    "file elsewhere": (["--file", "deep/prefect.yaml"], "is not below"),
}


@pytest.mark.parametrize(("options", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(site: Path, pool: str, cli: CommandLine, options: list[str], says: str) -> None:
    """What would never run is refused with what to do about it, and no file is made."""
    (site / "deep").mkdir()
    ended = cli("deploy", "small.py:mean", *([] if "--pool" in options else ["--pool", pool]), *options)
    assert (2, True) == (ended.code, says in ended.err), ended.err
    assert "Traceback" not in ended.err
    assert [] == list(site.rglob("prefect.yaml"))


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("missing.py:mean", "There is no file missing.py"),
        ("small.py:on_train", "no model named 'on_train'"),
        ("broken.py:mean", "broken.py cannot be imported"),
        ("nobody", "No model 'nobody'"),
    ],
)
def test_refuses_model(site: Path, cli: CommandLine, reference: str, says: str) -> None:
    """A reference that does not lead to a model is refused."""
    (site / "broken.py").write_text("import nothing_of_that_name\n")
    ended = cli("deploy", reference)
    assert (2, True) == (ended.code, says in ended.err), ended.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"deployments: [\n", "line 2"),
        (b"deployments:\n\t- name: x\n", "line 2"),
        (b"name: a\nname: b\n", "duplicate key"),
        (b"- a list\n", "must be a mapping"),
        (b"deployments: {name: x}\n", "deployments must be a list"),
        (b"name: \xff\n", "UTF-8"),
    ],
)
def test_refuses_file(site: Path, cli: CommandLine, content: bytes, says: str) -> None:
    """A prefect.yaml that cannot be read is refused by name and line, and left as it is."""
    (site / "prefect.yaml").write_bytes(content)
    ended = cli("deploy", "small.py:mean")
    assert (2, True, True) == (ended.code, "prefect.yaml" in ended.err, says in ended.err), ended.err
    assert content == (site / "prefect.yaml").read_bytes()


def test_applies(site: Path, pool: str, server: str, cli: CommandLine) -> None:
    """With --apply a deployment has its schedule and the limit of its model, which Prefect's own command leaves."""
    options = ("--schedule", "0 6 * * 1", "--data", "data.csv", "--pool", pool, "--name", pool)
    ended = cli("deploy", "small.py:mean", *options, "--apply")
    assert 0 == ended.code, ended.err
    with connect(server) as api:
        api.get("/block_types/slug/deployed-config").raise_for_status()
        made = api.get(f"/deployments/name/mean-retrain/{pool}").raise_for_status().json()
        again = cli("deploy", "small.py:mean", *options, "--apply", "--json").json
        bare = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], check=False)
        assert 0 == bare.returncode
        twice = api.get(f"/deployments/name/mean-retrain/{pool}").raise_for_status().json()
        api.delete(f"/deployments/{made['id']}").raise_for_status()
    assert (pool, "0 6 * * 1") == (made["work_pool_name"], made["schedules"][0]["schedule"]["cron"])
    for one in (made, twice):
        limit = one["global_concurrency_limit"]
        assert ("chapkit-train-mean", 1) == (limit["name"], limit["limit"])
        assert "ENQUEUE" == one["concurrency_options"]["collision_strategy"]
    assert (True, 1) == (again["deployed"], len(twice["schedules"]))


def test_server_that_is_down(site: Path, cli: CommandLine) -> None:
    """Without its server nothing is written, for nobody knows whether the pool is there."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        ended = cli("deploy", "small.py:mean")
    assert (2, True) == (ended.code, "http://127.0.0.1:9/api does not answer" in ended.err)
    assert not (site / "prefect.yaml").exists()


def test_no_server(site: Path, cli: CommandLine) -> None:
    """Where no server is set the entry is written unseen, which is told; --apply is refused."""
    with temporary_settings({PREFECT_API_URL: None}):
        refused = cli("deploy", "small.py:mean", "--apply")
        assert (2, False) == (refused.code, (site / "prefect.yaml").exists())
        written = cli("deploy", "small.py:mean")
    assert (0, True) == (written.code, "PREFECT_API_URL is not set" in written.err)
    assert "mean-retrain" in _entries(site)


def test_installed_model_gets_a_module(
    site: Path, pool: str, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is installed gets a short module, through which Prefect finds its flows."""
    package = site / "site-packages"
    (package / "installed_small-1.dist-info").mkdir(parents=True)
    (package / "installed_small.py").write_text(MODEL)
    (package / "installed_small-1.dist-info" / "METADATA").write_text("Name: installed-small\nVersion: 1\n")
    (package / "installed_small-1.dist-info" / "entry_points.txt").write_text(
        "[chapkit_flows.models]\nsmall-mean = installed_small:mean\n"
    )
    monkeypatch.syspath_prepend(str(package))
    assert 0 == cli("deploy", "small-mean", "--pool", pool).code
    assert "deployments/mean.py:retrain" == _entries(site)["mean-retrain"]["entrypoint"]
    listed = subprocess.run(
        [sys.executable, "-c", "import runpy; print(runpy.run_path('deployments/mean.py')['retrain'].name)"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{package}:{MODELS.parents[3]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "mean-retrain" == listed.stdout.strip(), listed.stderr
