"""Plan, apply and pull: YAML documents and the configs that the server has."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from command_line import CommandLine
from faulty_proxy import Faults, faulty_proxy
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from pydantic import SecretStr

from chapkit_flows import ModelConfig, load_model, open_resources
from chapkit_flows.lineage.configs import config_history, load_content
from chapkit_flows.refs import digest_of

MODEL = """
from pydantic import SecretStr
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class {name}(ModelConfig):
    n_lags: int = 3
    token: SecretStr = SecretStr("")

made = Model(name="made", config={name}, runner=FunctionalModelRunner(print, print))
"""
FILE = """\
# what runs every week
block_type_slug: {slug}
name: weekly
model: ../model.py
fields:
  n_lags:  3      # how far back
  token: ${{env:WEEKLY_TOKEN}}   # never the token itself
---
block_type_slug: {slug}
name: monthly
model: ../model.py
fields: {{n_lags: 6,   colours: [red,  blue]}}
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A folder of documents of one config type, and what the server has of it."""

    folder: Path
    config: type[ModelConfig]
    slug: str

    @property
    def file(self) -> Path:
        return self.folder / "blocks/all.yaml"

    @property
    def blocks(self) -> Path:
        return self.folder / "blocks"

    def edit(self, name: str, **values: Any) -> None:
        """Change a saved config as somebody does in Prefect's UI."""
        saved = self.config.load(name)
        for key, value in values.items():
            if key in self.config.model_fields:
                setattr(saved, key, value)
            else:
                saved.additional_options[key] = value
        saved.save(name, overwrite=True)


@pytest.fixture
def site(server: str, home: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """Documents of a config type that no other test has."""
    name = f"Site{digest_of(request.node.name.encode())[7:15]}Config"
    (tmp_path / "blocks").mkdir()
    (tmp_path / "model.py").write_text(MODEL.format(name=name))
    config: Any = load_model(tmp_path / "model.py").config
    slug = config.get_block_type_slug()
    site = Site(folder=tmp_path, config=config, slug=slug)
    site.file.write_text(FILE.format(slug=slug))
    return site


def actions(answer: Any, key: str = "action") -> dict[str, str]:
    """What is said of each block, by its name."""
    return {block["block"].split("/")[1]: block[key] for block in answer["blocks"]}


def test_plan_writes_nothing(site: Site, cli: CommandLine) -> None:
    """A plan names what is to be created, with file and line; the server stays empty; CI can tell by the exit code."""
    planned = cli("blocks", "plan", site.blocks, "--exit-code", "--json")
    assert (1, True, "register") == (planned.code, planned.json["changes"], planned.json["types"][0]["action"])
    assert [(str(site.file), 2), (str(site.file), 9)] == [
        (block["file"], block["line"]) for block in planned.json["blocks"]
    ]
    assert {"weekly": "create", "monthly": "create"} == actions(cli("blocks", "plan", site.blocks, "--json").json)
    assert {"weekly": "create", "monthly": "create"} == actions(
        cli("blocks", "apply", site.blocks, "--dry-run", "--json").json
    )
    assert 0 == cli("blocks", "apply", site.blocks).code
    after = cli("blocks", "plan", site.blocks, "--exit-code")
    assert (0, True) == (after.code, after.out.endswith("Nothing to change.\n"))


def test_plan_tells_edits_here_from_edits_there(site: Site, cli: CommandLine) -> None:
    """What was changed in the file is an update, what was changed on the server has drifted; both is told, too."""
    cli("blocks", "apply", site.blocks)
    site.edit("monthly", n_lags=7)
    site.config(n_lags=1).save("by-hand")
    site.file.write_text(site.file.read_text().replace("n_lags:  3", "n_lags:  4"))
    planned = cli("blocks", "plan", site.blocks, "--json").json
    assert {"weekly": "update", "monthly": "drifted", "by-hand": "extra"} == actions(planned)
    assert [[{"field": "n_lags", "before": 3, "after": 4}], [{"field": "n_lags", "before": 7, "after": 6}], []] == [
        block["fields"] for block in planned["blocks"]
    ]
    site.edit("weekly", n_lags=5)
    told = cli("blocks", "plan", site.blocks).out
    assert f"drifted    {site.slug}/weekly   {site.file}:2  (edited on the server and in the file since it" in told
    assert "           n_lags: 5 -> 4\n" in told
    assert f"drifted    {site.slug}/monthly  {site.file}:9  (edited on the server since it was applied)\n" in told
    assert "0 to create, 0 to update, 2 drifted, 0 unchanged, 1 on the server only." in told


def test_plan_masks_secrets(site: Site, cli: CommandLine) -> None:
    """A secret value is compared, and shown on neither side; a reference is."""
    cli("blocks", "apply", site.blocks)
    site.edit("weekly", token=SecretStr("canary-planned"))
    told = [cli("blocks", command, site.blocks, *more) for command in ("plan", "pull") for more in ((), ("--json",))]
    assert 'token: "**********" -> "${env:WEEKLY_TOKEN}"' in told[0].out
    assert "secret values differ and are never written: token" in told[2].out
    site.file.write_text(site.file.read_text().replace("${env:WEEKLY_TOKEN}", "canary-written"))
    told.append(cli("blocks", "plan", site.blocks))
    assert "token: secret value differs" in told[-1].out
    told.append(cli("blocks", "apply", site.blocks, "--overwrite"))
    assert [] == [ended for ended in told if "canary" in ended.out + ended.err]
    assert "canary-written" == site.config.load("weekly").token.get_secret_value()


def test_apply_leaves_what_drifted(site: Site, cli: CommandLine) -> None:
    """An edit on the server stays until it is to be overwritten, and is in the history then."""
    cli("blocks", "apply", site.blocks, "--by", "ana", "--note", "the first")
    site.edit("weekly", n_lags=9)
    left = cli("blocks", "apply", site.blocks)
    assert (1, 9) == (left.code, site.config.load("weekly").n_lags)
    assert "1 left as they are, for they were edited on the server. Bring the edits to the files with `c" in left.err
    assert {"weekly": "drifted", "monthly": "unchanged"} == actions(
        cli("blocks", "apply", site.blocks, "--json").json, "change"
    )
    assert 0 == cli("blocks", "apply", site.blocks, "--overwrite", "--by", "bo").code
    assert 3 == site.config.load("weekly").n_lags
    database = open_resources().database
    history = config_history(database, site.slug, "weekly")
    assert [("apply", "ana", "the first"), ("ui", "bo", None), ("apply", "bo", None)] == [
        (entry.origin, entry.author, entry.note) for entry in history
    ]
    assert [3, 9, 3] == [load_content(database, entry).content["n_lags"] for entry in history]


def test_apply_of_the_same_is_no_entry(site: Site, cli: CommandLine) -> None:
    """Applying what is there adds nothing to the history; what was applied without it is taken up."""
    for _ in range(3):
        cli("blocks", "apply", site.blocks)
    database = open_resources().database
    assert ["apply"] == [entry.origin for entry in config_history(database, site.slug, "weekly")]


@pytest.mark.parametrize("answer", ["n\n", "y\n"])
def test_terminal_is_asked(site: Site, cli: CommandLine, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """On a terminal one is asked before an edit of the server is lost."""
    cli("blocks", "apply", site.blocks)
    site.edit("monthly", n_lags=9)
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    ended = cli("blocks", "apply", site.blocks)
    assert "Overwrite these 1, which were edited on the server? [y/N]" in ended.err
    assert (9 if answer == "n\n" else 6) == site.config.load("monthly").n_lags


def test_prune_deletes_of_its_types_only(site: Site, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs that are in no file go, of the types in PATH alone, once that is confirmed; the history keeps them."""

    class PruneBystanderConfig(ModelConfig):
        pass

    PruneBystanderConfig().save("by-hand", overwrite=True)
    cli("blocks", "apply", site.blocks)
    site.config(n_lags=8).save("by-hand")
    refused = cli("blocks", "apply", site.blocks, "--prune")
    assert (2, 8) == (refused.code, site.config.load("by-hand").n_lags)
    assert f"--prune would delete {site.slug}/by-hand. Nothing was written. Pass --yes" in refused.err
    assert "delete" == actions(cli("blocks", "plan", site.blocks, "--prune", "--json").json)["by-hand"]
    assert {"weekly": "unchanged", "monthly": "unchanged", "by-hand": "deleted"} == actions(
        cli("blocks", "apply", site.blocks, "--prune", "--yes", "--json").json, "change"
    )
    with pytest.raises(ValueError, match="Unable to find block document"):
        site.config.load("by-hand")
    assert PruneBystanderConfig.load("by-hand")
    (found,) = config_history(open_resources().database, site.slug, "by-hand")
    assert ("ui", 8) == (found.origin, load_content(open_resources().database, found).content["n_lags"])


@pytest.fixture
def proxy(server: str) -> Iterator[Faults]:
    """What goes wrong between the commands and the server."""
    place = urlsplit(server)
    with (
        faulty_proxy(str(place.hostname), int(place.port or 0)) as (url, faults),
        temporary_settings({PREFECT_API_URL: f"{url}/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
    ):
        yield faults


@pytest.mark.parametrize("as_json", [False, True])
def test_half_way_failure_is_told_and_completed(site: Site, cli: CommandLine, proxy: Faults, as_json: bool) -> None:
    """When the server fails in the middle, what was written is named; applying again does the rest."""
    passed: list[str] = []

    def after_the_first(request: str) -> str | None:
        passed.append(request)
        return "500" if request == "POST /api/block_documents/" and passed.count(request) == 2 else None

    proxy.take = after_the_first  # type: ignore[method-assign]
    ended = cli("blocks", "apply", site.blocks, *(["--json"] if as_json else []))
    assert 2 == ended.code
    if as_json:
        assert {"weekly": "created", "monthly": "not written"} == actions(ended.json, "change")
        assert ("failed", "ServerRefused") == (ended.json["status"], ended.json["error"]["type"])
    else:
        assert "written before it failed; apply again to complete it." in ended.err
        assert "error The Prefect server at" in ended.err
        assert "not written" in ended.out
    again = cli("blocks", "apply", site.blocks, "--json").json
    assert {"weekly": "unchanged", "monthly": "created"} == actions(again, "change")
    for name in ("weekly", "monthly"):
        assert 1 == len(config_history(open_resources().database, site.slug, name))


def test_change_between_plan_and_apply_is_not_lost(
    site: Site, cli: CommandLine, proxy: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who saves a config after the plan was read does not lose it."""
    cli("blocks", "apply", site.blocks)
    site.file.write_text(site.file.read_text().replace("n_lags:  3", "n_lags:  4"))
    take, edited = proxy.take, list[int]()

    def edit_first(request: str) -> str | None:
        if request.startswith("GET /api/block_documents/") and not edited:
            edited.append(1)
            site.edit("weekly", n_lags=11)
        return take(request)

    proxy.take = edit_first  # type: ignore[method-assign]
    ended = cli("blocks", "apply", site.blocks)
    assert (2, 11) == (ended.code, site.config.load("weekly").n_lags)
    assert f"{site.slug}/weekly was changed on the server while this plan was carried out. It was not" in ended.err


def test_pull_of_nothing_changes_no_byte(site: Site, cli: CommandLine) -> None:
    """Where nothing was edited, files stay as they are, byte for byte."""
    cli("blocks", "apply", site.blocks)
    before = site.file.read_bytes()
    ended = cli("blocks", "pull", site.blocks)
    assert (0, before, True) == (ended.code, site.file.read_bytes(), ended.out.endswith("Nothing to write.\n"))


def test_pull_changes_only_what_was_edited(site: Site, cli: CommandLine) -> None:
    """One edited value changes one line, and leaves the rest of it; afterwards the plan is empty."""
    cli("blocks", "apply", site.blocks)
    before = site.file.read_text()
    site.edit("weekly", n_lags=5)
    site.edit("monthly", colours=["red", "green", "blue"], mood="good")
    ended = cli("blocks", "pull", site.blocks)
    expected = before.replace("n_lags:  3      #", "n_lags:  5      #")
    expected = expected.replace("[red,  blue]}", "[red, green,  blue], mood: good}")
    assert (0, expected) == (ended.code, site.file.read_text())
    assert "           n_lags: 3 -> 5\n" in ended.out
    assert 0 == cli("blocks", "plan", site.blocks, "--exit-code").code
    site.edit("weekly", n_lags=6)
    assert "drifted" == actions(cli("blocks", "plan", site.blocks, "--json").json)["weekly"]


def test_pull_does_not_undo_the_file(site: Site, cli: CommandLine) -> None:
    """A file that is newer than the server stays; one that was edited on both sides is overwritten by word only."""
    cli("blocks", "apply", site.blocks)
    site.file.write_text(site.file.read_text().replace("n_lags:  3", "n_lags:  4"))
    ended = cli("blocks", "pull", site.blocks)
    assert (1, True) == (ended.code, "the file is newer than the server; apply it" in ended.out)
    site.edit("weekly", n_lags=5)
    ended = cli("blocks", "pull", site.blocks)
    assert (1, True) == (ended.code, "both changed since it was applied; --overwrite takes the server's" in ended.out)
    assert "n_lags:  4 " in site.file.read_text()
    assert 0 == cli("blocks", "pull", site.blocks, "--overwrite").code
    assert "n_lags:  5 " in site.file.read_text()


@pytest.mark.parametrize("into", ["blocks", "blocks/all.yaml"])
def test_pull_makes_documents_when_asked(site: Site, cli: CommandLine, into: str) -> None:
    """Configs that are on the server only become documents with --new, their secrets references."""
    cli("blocks", "apply", site.blocks)
    name = "in-folder" if into == "blocks" else "in-file"
    site.config(n_lags=2, token="canary-new", mood="good").save(name)
    path = site.folder / into
    assert name not in site.file.read_text() and "left" == actions(cli("blocks", "pull", path, "--json").json)[name]
    before = site.file.read_text()
    ended = cli("blocks", "pull", path, "--new")
    assert "set TOKEN, or name where the secret is: the server's is not written" in ended.out
    written = site.blocks / f"{name}.yaml" if into == "blocks" else site.file
    assert written.read_text().startswith("block_type_slug" if into == "blocks" else before + "---\n")
    assert "canary" not in written.read_text() + ended.out
    planned = cli("blocks", "plan", path, "--json").json
    (block,) = [block for block in planned["blocks"] if block["block"].endswith(name)]
    assert [{"field": "token", "before": "**********", "after": "${env:TOKEN}"}] == block["fields"]


@pytest.mark.parametrize("count", [1, 19, 20])
def test_plan_asks_the_server_few_times(
    site: Site, cli: CommandLine, proxy: Faults, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """However many documents there are, the types, a schema each, and whole pages are read, and nothing else."""
    monkeypatch.setattr("chapkit_flows.configs.plan._PAGE", 20)
    site.file.write_text("---\n".join(_documents(site, count)))
    assert 0 == cli("blocks", "apply", site.blocks).code
    proxy.seen.clear()
    assert 0 == cli("blocks", "plan", site.blocks, "--exit-code").code
    asked = [request for request in proxy.seen if "/api/block" in request]
    assert 3 + count // 20 == len(asked)
    assert len(asked) + 2 >= len(proxy.seen)


def _documents(site: Site, count: int) -> list[str]:
    head = f"block_type_slug: {site.slug}\nmodel: ../model.py\n"
    return [f"{head}name: n{number:03}\nfields: {{n_lags: {number}}}\n" for number in range(count)]


class Handler(BaseHTTPRequestHandler):
    """A server that is well, of another version, and refuses what is asked of it; or never answers."""

    status = 422

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.status == 0:
            self.server.released.wait(30)  # type: ignore[attr-defined]
        content = json.dumps("2.1.0" if self.path.endswith("/version") else {"detail": "no such filter"}).encode()
        self.send_response(200 if self.path.endswith("/version") else self.status or 500)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def standing_in(status: int) -> Iterator[str]:
    """The URL of a server that answers with one status; 0 does not answer."""
    handler = type("OneStatus", (Handler,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        web.daemon_threads, web.released = True, threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/api"
        web.released.set()  # type: ignore[attr-defined]
        web.shutdown()


@pytest.mark.parametrize("command", ["plan", "apply", "pull"])
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "wants authentication (401). Set PREFECT_API_AUTH_STRING to user:password"),
        (422, "refused the request (422): no such filter. Correct what it names"),
        (0, "takes too long to answer. It may have too much to do: try again later, or wait longer with PREFECT_API"),
    ],
)
def test_server_that_does_not_help_is_explained(
    site: Site, cli: CommandLine, command: str, status: int, said: str
) -> None:
    """A server that wants a password, refuses, is of another version or slow is told of, with what to do."""
    before = site.file.read_bytes()
    with (
        standing_in(status) as url,
        temporary_settings({PREFECT_API_URL: url, PREFECT_API_REQUEST_TIMEOUT: 0.5, PREFECT_CLIENT_MAX_RETRIES: 0}),
    ):
        ended = cli("blocks", command, site.blocks)
    assert (2, before) == (ended.code, site.file.read_bytes())
    assert f"The Prefect server at {url} {said}" in ended.err
    assert (status != 0) == ("It runs Prefect 2.1.0, this installation " in ended.err)


@pytest.mark.parametrize("command", ["plan", "apply", "pull"])
def test_server_that_is_down_is_explained(home: Path, site: Site, cli: CommandLine, command: str) -> None:
    """Without a server, it is said how to start one; nothing is written."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        ended = cli("blocks", command, site.blocks)
    assert (2, True) == (ended.code, "http://127.0.0.1:9/api does not answer" in ended.err)
    assert "Start it with `prefect server start`" in ended.err
