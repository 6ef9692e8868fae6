"""What the command line does with input from the edges: values, settings, servers and interrupts that do not fit."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from command_line import CommandLine, Story, model, write_tables
from prefect.settings import PREFECT_API_URL, temporary_settings

from chapkit_flows import open_resources
from chapkit_flows.lineage.query import list_runs
from chapkit_flows.testing.facts import make_training, record_run

SETTINGS = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_"
NEEDY = """
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class NeedyEdgeConfig(ModelConfig):
    region: str

def on_train(config, data, geo=None):
    return {"region": config.region}

def on_predict(config, model, historic, future, geo=None):
    return future[["time_period", "location"]].assign(prediction=1.0)

needy = Model(name="needy", config=NeedyEdgeConfig, runner=FunctionalModelRunner(on_train, on_predict))
"""


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("samples", "--set 'samples': write it as key=value"),
        ("samples=many", "--set samples=many: Input should be a valid integer"),
        ("samples=" + "9" * 5000, f"--set samples={'9' * 80}…: not readable YAML"),
        ("start=2024-02-30", "--set start=2024-02-30: not readable YAML: day is out of range"),
        ("x=0b_", "--set x=0b_: not readable YAML"),
        ("x=[", "--set x=[: not readable YAML"),
        ('x="\\ud83d"', "holds half a character"),
        ("x=&a [*a]", "contains itself by an anchor"),
        ("x=1\n---\n2", "more than one value"),
        ("block_type_slug=foo", "the key 'block_type_slug' belongs to Prefect"),
        ("additional_continuous_covariates=[1]", "(additional_continuous_covariates.0): Input should be a valid str"),
    ],
)
def test_refuses_setting_of_config(cli: CommandLine, given: str, names: str) -> None:
    """A value that no config can hold is refused with its key and as it was given."""
    ended = cli("train", model("mean"), "--data", "data.csv", "--set", given)
    assert 2 == ended.code
    assert names in ended.err
    assert "Traceback" not in ended.err


ALIASED = """
from pydantic import Field, SecretStr
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class AliasedEdgeConfig(ModelConfig):
    n_lags: int = Field(default=3, alias="n-lags")
    token: SecretStr = SecretStr("none")

aliased = Model(name="aliased", config=AliasedEdgeConfig, runner=FunctionalModelRunner(print, print))
"""


@pytest.fixture(scope="module")
def aliased(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One file for all tests: a copy would define its config type twice."""
    file = tmp_path_factory.mktemp("aliased") / "aliased.py"
    file.write_text(ALIASED)
    return f"{file}:aliased"


@pytest.mark.parametrize(
    ("given", "shown"), [("n-lags=many", "n-lags=many"), ("n_lags=many", "n_lags=many"), ("token=1234", "token=***")]
)
def test_refused_value_is_shown_unless_secret(cli: CommandLine, aliased: str, given: str, shown: str) -> None:
    """A field may be named by its name or its alias; a secret is not repeated."""
    ended = cli("train", aliased, "--data", "data.csv", "--set", given)
    assert (2, True) == (ended.code, f"--set {shown}: Input should be a valid" in ended.err)
    assert "1234" not in ended.err


def test_tells_of_undeclared_key(server: str, home: Path, cli: CommandLine, tmp_path: Path) -> None:
    """A key that is no field of the config class is passed on, and the user is told, with the nearest field."""
    changes = ("--set", "sample=2", "--set", "colour=blue", "--set", "label=x")
    ended = cli("validate", model("mean"), "--data", write_tables(tmp_path)["training"], *changes)
    assert 0 == ended.code
    assert "sample is not a field of SmallConfig; did you mean samples? It is passed on" in ended.err
    assert "colour is not a field of SmallConfig. It is passed on as an additional option." in ended.err
    assert 2 == len(ended.err.splitlines())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SCRIPT_TIMEOUT_SECONDS", "abc", ": Input should be a valid number"),
        ("SCRIPT_TIMEOUT_SECONDS", "-1", ": Input should be greater than 0"),
        ("STORAGE_OPTIONS", "notjson", " is not readable JSON: Expecting value"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_refuses_setting(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str, as_json: bool
) -> None:
    """A setting that does not fit is named by its variable."""
    monkeypatch.setenv(f"{SETTINGS}{name}", value)
    ended = cli("runs", "list", *(["--json"] if as_json else []))
    assert 2 == ended.code
    assert f"{SETTINGS}{name}{said}" in (ended.json["error"]["message"] if as_json else ended.err)


@pytest.mark.parametrize("as_json", [False, True])
def test_refuses_name_that_is_not_utf8(cli: CommandLine, as_json: bool) -> None:
    """An argument that is not UTF-8 text is refused before anything runs."""
    ended = cli("train", model("mean"), "--data", "\udce9t\udce9.csv", *(["--json"] if as_json else []))
    assert 2 == ended.code
    said = ended.json["error"]["message"] if as_json else ended.err
    assert r"'\udce9t\udce9.csv' is not UTF-8 text. Rename the file" in said


def test_interrupt_while_modules_load(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt stops the command without a traceback even before it has begun."""

    def interrupt(name: str) -> None:
        raise KeyboardInterrupt(name)

    monkeypatch.setattr(importlib, "import_module", interrupt)
    ended = cli("runs", "list")
    assert (130, "", "Stopped.\n") == (ended.code, ended.out, ended.err)


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """The URL of a server that is well, and answers everything else with one status."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            content = body.encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    for method in ("GET", "POST", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/api"
        web.shutdown()


TOO_LARGE = json.dumps(
    {"exception_detail": [{"loc": ["body", "parameters"], "msg": "too large", "input": "x" * 1_000_000}]}
)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "{}", "wants authentication (401). Set PREFECT_API_AUTH_STRING"),
        (404, "{}", "does not know what Prefect asks for. Correct PREFECT_API_URL: it ends in /api"),
        (409, '{"detail": "is taken"}', "refused the request (409): is taken. Correct what it names"),
        (422, TOO_LARGE, "refused the request (422): body.parameters: too large. Correct what it names"),
        (422, json.dumps({"detail": "x" * 1_000_000}), f"refused the request (422): {'x' * 300}…. Correct"),
        (500, "<html>", "failed (500): <html>. Look into its log"),
        (200, "<html>", "does not know what Prefect asks for"),
    ],
)
def test_says_what_the_server_refused(cli: CommandLine, home: Path, status: int, body: str, said: str) -> None:
    """An answer is no silence: it is told in short, with the remedy."""
    with answering(status, body) as url, temporary_settings({PREFECT_API_URL: url}):
        ended = cli("train", model("mean"), "--data", "data.csv")
        checks = cli("doctor", "--json").json["checks"]
    assert 2 == ended.code
    assert f"The Prefect server at {url} {said}" in ended.err
    (server,) = [check for check in checks if check["check"] == "server"]
    assert ("error", True) == (server["status"], server["detail"].startswith(f"The Prefect server at {url} "))
    assert len(ended.err) < 1000
    assert "Traceback" not in ended.err


def test_only_silence_is_unavailability(cli: CommandLine, home: Path) -> None:
    """A server that refuses the connection does not answer; its password is not shown."""
    with temporary_settings({PREFECT_API_URL: "http://ann:hunter2@127.0.0.1:9/api"}):
        ended = cli("train", model("mean"), "--data", "data.csv")
    assert (2, True) == (ended.code, "http://***@127.0.0.1:9/api does not answer: " in ended.err)
    assert "hunter2" not in ended.err


def test_looks_up_without_the_server_that_knows_the_store(
    cli: CommandLine, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the database is shown while the server with the storage block is down; bytes are not."""
    run = record_run(open_resources().database, make_training())
    model = run.output("model").id
    monkeypatch.setenv(f"{SETTINGS}STORAGE_BLOCK", "production")
    lookups = [
        ("runs", "list"),
        ("runs", "list", "--where", "model = 'rain'"),
        ("runs", "show", run.id),
        ("runs", "export", run.id, "--out", tmp_path / "runs.jsonl"),
        ("runs", "tag", run.id, "site=A", "--dry-run"),
        ("artifacts", "list"),
        ("artifacts", "show", model),
        ("artifacts", "trash"),
        ("artifacts", "delete", "--where", "model = 'rain'", "--reason", "x", "--dry-run"),
        ("artifacts", "restore", model, "--dry-run"),
        ("artifacts", "download", model, "--dry-run"),
        ("lineage", model),
    ]
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert [] == [command for command in lookups if cli(*command).code != 0]
        ended = cli("artifacts", "download", model, "--out", tmp_path / "model")
    assert (2, True) == (ended.code, "which keeps the storage block production, does not answer" in ended.err)


def test_config_with_required_field(server: str, home: Path, cli: CommandLine, tmp_path: Path) -> None:
    """A config that only the user can fill in stops neither sample data nor the validation of a prediction."""
    (tmp_path / "needy.py").write_text(NEEDY)
    needy = f"{tmp_path}/needy.py:needy"
    files = cli("sample-data", needy, "--out", tmp_path / "data", "--json").json
    assert 3 == pd.read_csv(files["future"])["time_period"].nunique()
    lacking = cli("train", needy, "--data", files["training"])
    assert 2 == lacking.code
    assert "region is required. Pass --set region=VALUE, or a saved config with --config NAME" in lacking.err
    trained = cli("train", needy, "--data", files["training"], "--set", "region=north", "--json").json
    inputs = ("--historic", files["historic"], "--future", files["future"])
    checked = cli("validate", needy, "--artifact", trained["artifact_id"], *inputs)
    assert (0, "") == (checked.code, checked.err)
    told = cli("validate", needy, "--artifact", trained["artifact_id"], *inputs, "--set", "region=south")
    assert (0, True) == (told.code, "the config of the training counts" in told.err)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", ["train", "predict"])
def test_failed_run_is_named(story: Story, cli: CommandLine, command: str, as_json: bool) -> None:
    """A command whose run has failed names the run that was recorded."""
    arguments = {
        "train": [model("shell"), "--data", "gone.csv"],
        "predict": [story.trained.artifact_id, "--historic", "gone.csv", "--future", "gone.csv"],
    }
    ended = cli(command, *arguments[command], *(["--json"] if as_json else []))
    run = list_runs(open_resources().database, limit=1)[0]
    assert (2, "failed", command) == (ended.code, run.status, run.flow)
    if as_json:
        result = ended.json
        error = result.pop("error")
        expected = {"status": "failed", "run_id": run.id, "flow_run_id": run.flow_run_id, "artifact_id": None}
        assert expected == result
        assert "gone.csv does not exist" in error["message"]
    else:
        assert f"Run {run.id} failed; look: chapkit-flows runs show {run.id}" in ended.err


def test_run_that_never_began_is_not_named(story: Story, cli: CommandLine) -> None:
    """Where no run was recorded, an error names none."""
    ended = cli("train", model("shell"), "--data", "gone.csv", "--set", "samples=many", "--json")
    assert (2, {"status", "error"}) == (ended.code, set(ended.json))


def test_predict_replaces_by_force_only(story: Story, cli: CommandLine, tmp_path: Path) -> None:
    """A file that is there stays as it is, and no run is started for it, unless --force says so."""
    out = tmp_path / "forecast.csv"
    out.write_text("mine")
    runs = len(list_runs(open_resources().database))
    files = ("--historic", story.tables["historic"], "--future", story.tables["future"])
    predict = ("predict", story.trained.artifact_id, *files, "--out", out)
    ended = cli(*predict)
    assert (2, "mine", runs) == (ended.code, out.read_text(), len(list_runs(open_resources().database)))
    assert f"{out} exists already. Remove it, choose another --out, or replace it with --force." in ended.err
    assert 0 == cli(*predict, "--force").code
    assert 6 == len(pd.read_csv(out))


def test_sample_data_replaces_by_force_only(cli: CommandLine, tmp_path: Path) -> None:
    """Equal files may be made again; another file of one of their names stays, unless --force says so."""
    make = ("sample-data", model("mean"), "--out", tmp_path, "--periods", 6)
    assert [0, 0] == [cli(*make).code for _ in range(2)]
    mine = tmp_path / "historic.csv"
    made = mine.read_bytes()
    (tmp_path / "future.csv").unlink()
    mine.write_text("mine")
    ended = cli(*make)
    assert (2, "mine", False) == (ended.code, mine.read_text(), (tmp_path / "future.csv").exists())
    assert f"{mine} exists already, with other content." in ended.err
    assert (0, made) == (cli(*make, "--force").code, mine.read_bytes())
