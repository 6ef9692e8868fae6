"""Each check of the doctor, made to fail by what it is there to find."""

from __future__ import annotations

import http.client
import os
import sqlite3
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from command_line import MODELS, CommandLine
from prefect.settings import PREFECT_API_URL, temporary_settings
from server_api import connect

from chapkit_flows import ModelConfig

MODEL = '''
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class {name}(ModelConfig):
    """Settings of the model that the doctor looks at."""
    level: int = 1

seen = Model(name="seen", config={name}, runner=FunctionalModelRunner(lambda *a: 1, lambda *a: None))
'''


def _look(cli: CommandLine, *options: object) -> tuple[int, dict[str, tuple[str, str]]]:
    given = options if "--file" in options else ("--file", "absent.yaml", *options)
    ended = cli("doctor", "--json", *given)
    return ended.code, {one["check"]: (one["status"], one["detail"]) for one in ended.json["checks"]}


@contextmanager
def _server_that_says(server: str, *, version: str | None = None, off: timedelta = timedelta()) -> Iterator[str]:
    """The URL of a proxy before the real server that gives another version or another time."""
    target = urlsplit(server)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            upstream = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
            upstream.request("GET", self.path)
            answer = upstream.getresponse()
            content = answer.read()
            if version is not None and self.path.endswith("/version"):
                content = f'"{version}"'.encode()
            self.send_response_only(answer.status)
            self.send_header("Date", format_datetime(datetime.now(UTC) + off, usegmt=True))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            upstream.close()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{proxy.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
        proxy.shutdown()
        thread.join()


def test_finds_another_version(server: str, home: Path, cli: CommandLine) -> None:
    """A server of another minor version is named with both versions, as a warning."""
    with _server_that_says(server, version="3.1.4"):
        code, checks = _look(cli)
    assert (0, "warning") == (code, checks["server"][0])
    assert "runs Prefect 3.1.4" in checks["server"][1]


@pytest.mark.parametrize(("off", "status"), [(timedelta(), "ok"), (timedelta(minutes=-2), "error")])
def test_finds_a_clock_that_is_wrong(server: str, home: Path, cli: CommandLine, off: timedelta, status: str) -> None:
    """A server whose clock differs from that of this machine is an error that tells by how much."""
    with _server_that_says(server, off=off):
        code, checks = _look(cli)
    assert (0 if status == "ok" else 1, status) == (code, checks["clock"][0])
    assert status == "ok" or "-120 s" in checks["clock"][1] or "-121 s" in checks["clock"][1]


def test_finds_no_pool(server: str, home: Path, cli: CommandLine) -> None:
    """A work pool that must be there and is not is an error with the command that makes it."""
    code, checks = _look(cli, "--pool", "nowhere")
    assert (1, "error") == (code, checks["work pool nowhere"][0])
    assert "prefect work-pool create nowhere --type process" in checks["work pool nowhere"][1]


def test_finds_pool_without_workers(server: str, home: Path, cli: CommandLine) -> None:
    """A pool is an error until a worker has told the server that it lives, and again while the pool is paused."""
    name = f"pool-{uuid.uuid4().hex[:8]}"
    with connect(server) as api:
        api.post("/work_pools/", json={"name": name, "type": "process"}).raise_for_status()
        idle = _look(cli, "--pool", name)
        api.post(f"/work_pools/{name}/workers/heartbeat", json={"name": "one"}).raise_for_status()
        alive = _look(cli, "--pool", name)
        api.patch(f"/work_pools/{name}", json={"is_paused": True}).raise_for_status()
        paused = _look(cli, "--pool", name)
        api.delete(f"/work_pools/{name}").raise_for_status()
    check = f"work pool {name}"
    assert [(1, "error"), (0, "ok"), (1, "error")] == [(code, c[check][0]) for code, c in (idle, alive, paused)]
    assert f"prefect worker start --pool {name}" in idle[1][check][1]
    assert f"prefect work-pool resume {name}" in paused[1][check][1]


def test_finds_block_type_that_is_not_as_the_class(server: str, home: Path, cli: CommandLine, tmp_path: Path) -> None:
    """A config class of a deployed model is looked for on the server, with the fields that it has now."""
    name = f"Seen{uuid.uuid4().hex[:6]}Config"
    (tmp_path / "seen.py").write_text(MODEL.format(name=name))
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments:\n  - name: a\n    entrypoint: seen.py:seen.retrain\n")
    check = f"block type {name.lower().replace('config', '-config')}"

    def look() -> tuple[str, str]:
        _, checks = _look(cli, "--file", file)
        (found,) = [value for key, value in checks.items() if key.startswith("block type seen")]
        return found

    assert "warning" == look()[0], check
    assert "blocks apply blocks/" in look()[1]
    config = next(one for one in ModelConfig.__subclasses__() if one.__name__ == name)
    config.register_type_and_schema()
    assert "ok" == look()[0]
    other = tmp_path / "other"
    other.mkdir()
    (other / "seen.py").write_text(
        MODEL.format(name=name).replace("level: int = 1", "level: int = 1\n    more: int = 2")
    )
    file.write_text("deployments:\n  - name: a\n    entrypoint: other/seen.py:seen.retrain\n")
    with pytest.warns(UserWarning, match="matches existing registered type"):
        status, detail = look()
    assert ("warning", True) == (status, "other fields" in detail)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("deployments:\n  - name: a\n    entrypoint: gone.py:x.train\n", "There is no file"),
        ("deployments:\n  - name: a\n    entrypoint: {model}:mean.fit\n", "names nothing"),
        ("deployments:\n  - name: a\n    entrypoint: {model}:on_train\n", "is no flow"),
        ("deployments: [", "not readable YAML"),
    ],
)
def test_finds_entrypoint_that_does_not_load(
    server: str, home: Path, cli: CommandLine, tmp_path: Path, content: str, says: str
) -> None:
    """An entry of prefect.yaml that no worker could run is an error, and so is a file that cannot be read."""
    file = tmp_path / "prefect.yaml"
    file.write_text(content.replace("{model}", str(MODELS)))
    code, checks = _look(cli, "--file", file)
    (found,) = [value for key, value in checks.items() if key.startswith("deployment ")]
    assert (1, "error", True) == (code, found[0], says in found[1]), found


def test_finds_a_full_disk(server: str, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home on a file system with next to no space is an error."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system, and not in every container")
    try:
        monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(folder / "home"))
        code, checks = _look(cli)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
    assert (1, "error", True) == (code, checks["disk"][0], " MB free at " in checks["disk"][1]), checks["disk"]


def test_finds_database_of_a_newer_version(server: str, home: Path, cli: CommandLine) -> None:
    """A database that a newer version has migrated is an error; otherwise its revision is told."""
    _, checks = _look(cli)
    assert ("ok", True) == (checks["database"][0], "revision 00" in checks["database"][1])
    with sqlite3.connect(home / "lineage.db") as database:
        database.execute("UPDATE lineage_alembic_version SET version_num = '9999'")
    database.close()
    code, checks = _look(cli)
    assert (1, "error", True) == (code, checks["database"][0], "pgrade" in checks["database"][1])


def test_finds_what_deployments_would_wait_for(server: str, home: Path, cli: CommandLine, tmp_path: Path) -> None:
    """The pools of deployments in prefect.yaml that are on the server are looked at, and whether trainings overlap."""
    pool = f"pool-{uuid.uuid4().hex[:8]}"
    (tmp_path / "seen.py").write_text(MODEL.format(name=f"Deployed{pool[-6:]}Config").replace('"seen"', f'"{pool}"'))
    file = tmp_path / "prefect.yaml"
    entries = "".join(
        f"  - name: {flow}\n    entrypoint: seen.py:seen.{flow}\n    work_pool: {{name: {pool}}}\n"
        for flow in ("train", "retrain")
    )
    file.write_text(f"deployments:\n{entries}")
    checks = {"work pool": f"work pool {pool}", "limit": f"limit of {pool}"}
    with connect(server) as api:
        api.post("/work_pools/", json={"name": pool, "type": "process"}).raise_for_status()
        absent = _look(cli, "--file", file)[1]
        for flow in ("train", "retrain"):
            flow_id = api.post("/flows/", json={"name": f"{pool}-{flow}"}).raise_for_status().json()["id"]
            entry = {"name": flow, "entrypoint": f"seen.py:seen.{flow}", "flow_id": flow_id, "work_pool_name": pool}
            api.post("/deployments/", json=entry).raise_for_status()
        code, idle = _look(cli, "--file", file)
        api.post(f"/work_pools/{pool}/workers/heartbeat", json={"name": "one"}).raise_for_status()
        limited = [cli("limits", "apply", "--file", file, "--json").json["changed"] for _ in range(2)]
        well = _look(cli, "--file", file)[1]
        api.delete(f"/work_pools/{pool}").raise_for_status()
    assert set() == set(checks.values()) & set(absent)
    assert (1, "error", "warning") == (code, idle[checks["work pool"]][0], idle[checks["limit"]][0])
    assert f"prefect worker start --pool {pool}" in idle[checks["work pool"]][1]
    assert f"{pool}-train/train, {pool}-retrain/retrain may train the model at once" in idle[checks["limit"]][1]
    assert [2, 0] == limited
    assert ("ok", False) == (well[checks["work pool"]][0], checks["limit"] in well)
