"""The commands about saved configs, on a real server: what is there, what differs, what comes back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import MODELS, CommandLine, model, write_tables
from prefect.client.orchestration import get_client
from prefect.types import SecretDict
from pydantic import BaseModel, SecretStr
from server_api import connect

from chapkit_flows import ModelConfig, load_model, open_resources
from chapkit_flows.configs.heads import read_head, write_head
from chapkit_flows.configs.versions import config_version
from chapkit_flows.errors import ConfigChanged
from chapkit_flows.flows.config_history import record_config
from chapkit_flows.lineage.facts import NewEntry
from chapkit_flows.refs import ConfigRef
from chapkit_flows.testing.facts import make_config

pytestmark = pytest.mark.usefixtures("server", "home")
DOCUMENT = f"""\
block_type_slug: small-config
name: NAME
model: {MODELS}:mean
fields:
  samples: 2
  colours: [red, blue]
"""


class Login(BaseModel):
    """A secret within a value."""

    user: str = "ana"
    password: SecretStr = SecretStr("")


class HiddenConfig(ModelConfig):
    """A config with secrets of every kind."""

    n_lags: int = 3
    token: SecretStr = SecretStr("")
    keys: SecretDict = SecretDict({})
    login: Login = Login()
    more: list[SecretStr] = []
    absent: SecretStr | None = None


SECRETS: dict[str, Any] = {
    "token": "s3cret-1",
    "keys": {"a": "s3cret-2"},
    "login": {"user": "bo", "password": "s3cret-3"},
    "more": ["s3cret-4"],
}


@pytest.fixture
def name() -> str:
    return f"saved-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def applied(cli: CommandLine, tmp_path: Path, name: str) -> Callable[[str], Path]:
    """Apply a document with other values."""

    def apply(values: str) -> Path:
        file = tmp_path / "config.yaml"
        file.write_text(DOCUMENT.replace("NAME", name).replace("samples: 2", values))
        assert 0 == cli("blocks", "apply", file, "--by", "ana").code
        return file

    return apply


def edit_in_ui(server: str, name: str, **values: Any) -> None:
    """Save other values, as the UI does: without asking who else has."""
    with connect(server) as api:
        found = api.get(f"/block_types/slug/small-config/block_documents/name/{name}").json()
        answer = api.patch(f"/block_documents/{found['id']}", json={"data": values, "merge_existing_data": True})
        assert 204 == answer.status_code, answer.text


def how(cli: CommandLine, name: str) -> list[tuple[int, str]]:
    entries = cli("configs", "history", name, "--json").json["entries"]
    return [(entry["number"], entry["origin"]) for entry in entries]


def test_history_of_a_config(
    cli: CommandLine, server: str, applied: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    """What was applied, edited in the UI and used, restored and used again is numbered, and each run knows its own."""
    applied("samples: 2")
    edit_in_ui(server, name, samples=4)
    data = write_tables(tmp_path / "data")["training"]
    run = cli("train", model("mean"), "--data", data, "--config", name, "--json").json["run_id"]
    edit_in_ui(server, name, samples=5)
    restored = cli("configs", "restore", f"{name}@1", "--by", "bo")
    assert f"small-config/{name} is now version 4: restores small-config/{name}@1." in restored.out
    assert [(1, "apply"), (2, "run"), (3, "ui"), (4, "restore")] == how(cli, name)
    assert 2 == load_model(model("mean")).config.load(name).samples
    assert f"small-config/{name}@2" in cli("runs", "show", run).out
    assert f"small-config/{name}@2" == cli("runs", "show", run, "--json").json["config_version"]
    (listed,) = cli("configs", "list", "--json").json["configs"]
    assert (name, 4, "bo", 1) == (listed["name"], listed["number"], listed["author"], listed["runs"])
    assert "has that content already" in cli("configs", "restore", f"{name}@1").out
    assert 4 == len(how(cli, name))


def test_change_for_one_run_is_no_version(
    cli: CommandLine, applied: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    """A config that `--set` changes, and the prediction with an older model, leave the history as it is."""
    applied("samples: 2")
    tables = write_tables(tmp_path / "data")
    training = ["train", model("mean"), "--data", tables["training"], "--config", name, "--json"]
    changed = cli(*training, "--set", "samples=3").json
    assert "changed for this run" in cli("runs", "show", changed["run_id"]).out
    old = cli(*training).json["artifact_id"]
    applied("samples: 5")
    cli(*training)
    assert 0 == cli("predict", old, "--historic", tables["historic"], "--future", tables["future"]).code
    assert [(1, "apply"), (2, "apply")] == how(cli, name)


def test_show(cli: CommandLine, applied: Callable[[str], Path], name: str) -> None:
    """A version is shown by name, number and the beginning of its digest."""
    applied("samples: 2")
    applied("samples: 3")
    first = cli("configs", "show", f"small-config/{name}@1", "--json").json
    assert (2, "ana") == (first["content"]["samples"], first["entry"]["author"])
    assert 3 == cli("configs", "show", name, "--json").json["content"]["samples"]
    assert first["content"] == cli("configs", "show", first["digest"][:17], "--json").json["content"]
    assert "samples" in cli("configs", "show", name).out


def test_diff(cli: CommandLine, server: str, applied: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    """Versions, what is saved now, runs and files are compared, with an exit code for CI."""
    file = applied("samples: 2")
    data = write_tables(tmp_path / "data")["training"]
    run = cli("train", model("mean"), "--data", data, "--config", name, "--json").json["run_id"]
    assert 0 == cli("configs", "diff", run, file).code
    edit_in_ui(server, name, samples=9)
    same, different = cli("configs", "diff", f"{name}@1", run), cli("configs", "diff", f"{name}@1", name)
    assert (0, True) == (same.code, "are the same" in same.out)
    assert (1, True) == (different.code, "~ samples: 2 → 9" in different.out)
    file.write_text(file.read_text().replace("[red, blue]", "[blue, red]"))
    moved = cli("configs", "diff", f"{name}@1", file, "--json")
    assert 1 == moved.code
    expected = {"path": "colours[1]", "kind": "moved", "to": "colours[0]", "value": "blue"}
    assert [expected] == moved.json["differences"]
    assert "| changed | `samples` | `9` | `2` |" in cli("configs", "diff", name, f"{file}#{name}", "--md").out


def test_use_gives_a_name_another_content(cli: CommandLine, applied: Callable[[str], Path], name: str) -> None:
    """Another name gets the content, made if it is not there; the next run uses it."""
    applied("samples: 2")
    applied("samples: 3")
    ended = cli("configs", "use", f"{name}@1", "--as", f"{name}-production")
    assert f"is now version 1: content of small-config/{name}@1" in ended.out
    assert 2 == load_model(model("mean")).config.load(f"{name}-production").samples
    assert ["red", "blue"] == load_model(model("mean")).config.load(f"{name}-production").colours


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "NAME@99"], "There is no small-config/NAME@99: it has version 1. "),
        (["restore", "NAME@99"], "There is no small-config/NAME@99"),
        (["restore", "NAME"], "names no version. Write"),
        (["history", "nothing"], "No config named 'nothing' was used or applied"),
        (["history", "small-config/nothing"], "small-config/nothing has no recorded version"),
        (["diff", "NAME@1", "small-config/nothing"], "There is no saved config small-config/nothing"),
        (["diff", "NAME@1", "other-config/nothing"], "has no block type other-config. Register it"),
        (["diff", "NAME@1", "absent.yaml"], "no file or folder absent.yaml"),
        (["show", "abcdef"], "no version a digest that begins with 'abcdef'"),
        (["show", "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"], "No run has the id"),
        (["use", "NAME", "--as", "other-config/x"], "is of type small-config, --as other-config/x of another"),
    ],
)
def test_what_is_not_there(
    cli: CommandLine, applied: Callable[[str], Path], name: str, arguments: list[str], expected: str
) -> None:
    """What names nothing is an error of code 2 that says what there is, or how to look."""
    applied("samples: 2")
    ended = cli("configs", *[text.replace("NAME", name) for text in arguments])
    assert (2, True) == (ended.code, expected.replace("NAME", name) in ended.err), ended.err


def test_names_that_are_not_clear(cli: CommandLine) -> None:
    """A name of two types, and the beginning of two digests, are errors that list what they may be."""
    resources, new = open_resources(), NewEntry(origin="ui", author="ana")
    for block_type, number in (("rain-config", 1), ("heat-config", 2)):
        content = make_config(number=number).content
        ref = ConfigRef(digest=f"sha256:abcd{number}", block_type=block_type, name="twice", content=content)
        record_config(resources, ref, new)
    ended = cli("configs", "show", "twice")
    assert "Several configs are named 'twice': heat-config/twice, rain-config/twice" in ended.err
    assert "beginning of several digests: sha256:abcd1, sha256:abcd2" in cli("configs", "show", "abcd").err


def test_secrets_stay(cli: CommandLine, name: str) -> None:
    """A restored version has the secret values that the saved config has now; the history has none."""
    config = HiddenConfig.model_validate(SECRETS)
    config.save(name)
    record_config(open_resources(), config_version(config), NewEntry(origin="apply", author="ana"))
    config.n_lags, config.token = 4, SecretStr("s3cret-5")
    config.save(name, overwrite=True)
    assert 0 == cli("configs", "restore", f"{name}@1").code
    restored = HiddenConfig.load(name)
    assert HiddenConfig.model_validate(SECRETS | {"token": "s3cret-5"}).values(reveal=True) == restored.values(
        reveal=True
    )
    printed = [cli("configs", command, what).out for command, what in (("show", name), ("history", name))]
    assert [] == [text for text in printed if "s3cret" in text]
    assert 0 == cli("configs", "use", f"{name}@1", "--as", f"{name}-copy").code
    assert restored.values(reveal=True) == HiddenConfig.load(f"{name}-copy").values(reveal=True)


def test_secrets_that_are_gone(cli: CommandLine, name: str) -> None:
    """A version with a secret is not restored where there is none to take in the place of the mask."""
    config = HiddenConfig(token="s3cret-1")
    config.save(name)
    record_config(open_resources(), config_version(config), NewEntry(origin="apply", author="ana"))
    HiddenConfig.delete(name)
    ended = cli("configs", "restore", f"{name}@1")
    assert (2, True) == (ended.code, "secret values (token), which the history does not keep" in ended.err)
    assert "s3cret" not in ended.err


@pytest.mark.parametrize("values", [{}, SECRETS, {"token": "${env:TOKEN}", "colour": "blue"}])
def test_head_is_the_version_that_a_run_would_see(name: str, values: dict[str, Any]) -> None:
    """What is read from the server without the class is the version that the class makes of it."""
    config = HiddenConfig.model_validate(dict(values))
    config.save(name)

    async def read() -> ConfigRef | None:
        async with get_client() as client:
            return (await read_head(client, "hidden-config", name)).ref

    assert config_version(config) == asyncio.run(read())


def test_edits_at_the_same_time(name: str) -> None:
    """Of two who have read the same config and both save it, the second is refused and nothing of the first is lost."""
    HiddenConfig(n_lags=3).save(name)

    async def both() -> None:
        async with get_client() as client:
            one, other = [await read_head(client, "hidden-config", name) for _ in range(2)]
            await write_head(client, one, {"n_lags": 4})
            with pytest.raises(ConfigChanged, match=f"hidden-config/{name} was changed on the server meanwhile"):
                await write_head(client, other, {"n_lags": 5})
            place = await read_head(client, "hidden-config", f"{name}-new")
            await write_head(client, place, {"n_lags": 6})
            with pytest.raises(ConfigChanged):
                await write_head(client, place, {"n_lags": 7})

    asyncio.run(both())
    assert (4, 6) == (HiddenConfig.load(name).n_lags, HiddenConfig.load(f"{name}-new").n_lags)
