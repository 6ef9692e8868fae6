"""The commands around the runs: sample-data, blocks apply, doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from command_line import MODELS, CommandLine, model
from prefect.settings import PREFECT_API_URL, temporary_settings

from chapkit_flows import load_model


@pytest.mark.parametrize(("name", "first"), [("mean", "2015-01"), ("weekly", "2015-W01")])
def test_sample_data_fits_model(
    server: str, home: Path, cli: CommandLine, tmp_path: Path, name: str, first: str
) -> None:
    """Sample data has the period type and covariates of the model, which trains and predicts on it."""
    options = ("--places", 3, "--periods", 8, "--horizon", 2, "--json")
    files = cli("sample-data", model(name), "--out", tmp_path / "data", *options).json
    training, future = pd.read_csv(files["training"]), pd.read_csv(files["future"])
    assert first == training["time_period"].min()
    assert (24, 6) == (len(training), len(future))
    assert {*load_model(model(name)).required_covariates} <= {*future.columns}
    assert set(training["location"]) == {
        feature["id"] for feature in json.loads(Path(files["geo"]).read_text())["features"]
    }
    trained = cli("train", model(name), "--data", files["training"], "--geo", files["geo"], "--json").json
    inputs = ("--historic", files["historic"], "--future", files["future"])
    assert "completed" == cli("predict", trained["artifact_id"], *inputs, "--json").json["status"]


def test_sample_data_is_seeded(cli: CommandLine, tmp_path: Path) -> None:
    """The same seed gives the same bytes, another seed other ones."""
    for folder, seed in (("a", 4), ("b", 4), ("c", 5)):
        assert 0 == cli("sample-data", model("mean"), "--out", tmp_path / folder, "--seed", seed).code
    content = {
        folder: {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()} for folder in ("a", "b", "c")
    }
    assert {"training.csv", "historic.csv", "future.csv", "geo.json"} == set(content["a"])
    assert content["a"] == content["b"]
    assert all(content["a"][name] != content["c"][name] for name in content["a"])


def test_sample_data_tells_next_step(cli: CommandLine, tmp_path: Path) -> None:
    """For people the command to train with is shown; five years of the horizon of the config by default."""
    ended = cli("sample-data", model("mean"), "--out", tmp_path)
    assert f"chapkit-flows train {model('mean')} --data {tmp_path / 'training.csv'}" in ended.out
    assert 60 == pd.read_csv(tmp_path / "training.csv")["time_period"].nunique()
    assert 3 == pd.read_csv(tmp_path / "future.csv")["time_period"].nunique()


@pytest.mark.parametrize("option", ["--places", "--periods", "--horizon"])
@pytest.mark.parametrize("value", [0, -3])
def test_sample_data_refuses_numbers_below_one(cli: CommandLine, tmp_path: Path, option: str, value: int) -> None:
    """Numbers without sense are refused by name, and nothing is written."""
    ended = cli("sample-data", model("mean"), "--out", tmp_path / "data", option, value)
    assert (2, True) == (ended.code, ended.err.startswith(f"error {option} is {value}; write 1 "))
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--seed", "-1"], "--seed is -1; write 0 or more."),
        (["--periods", "100000"], "--periods is 100000; write 1 to 1200."),
        (["--out", "{file}"], "{file} cannot be written: File exists"),
    ],
)
def test_sample_data_refuses(cli: CommandLine, tmp_path: Path, arguments: list[str], names: str) -> None:
    """What cannot be made or written ends with exit code 2."""
    file = tmp_path / "file"
    file.write_text("in the way")
    given = [argument.format(file=file) for argument in arguments]
    ended = cli("sample-data", model("mean"), *(given if "--out" in given else [*given, "--out", tmp_path / "data"]))
    assert 2 == ended.code
    assert names.format(file=file) in ended.err
    assert "Traceback" not in ended.err


BLOCKS = """
block_type_slug: small-config
name: applied-few
model: {model}
fields: {{samples: 2}}
---
block_type_slug: small-config
name: applied-many
model: {model}
fields: {{samples: 9, colour: blue}}
"""


def test_applies_blocks_twice(server: str, cli: CommandLine, tmp_path: Path) -> None:
    """Blocks are created, then unchanged, and updated once the document differs."""
    file = tmp_path / "small.yaml"
    file.write_text(BLOCKS.format(model=f"{MODELS}:mean"))
    first, again = (cli("blocks", "apply", tmp_path, "--json").json for _ in range(2))
    # Other tests may have saved configs of this type, which are in no file.
    assert {"created"} == {block["change"] for block in first["blocks"] if block["file"]}
    assert ["small-config"] == [kind["type"] for kind in first["types"]]
    assert [{"type": "small-config", "change": "unchanged"}] == again["types"]
    assert (0, {"unchanged"}) == (again["changed"], {block["change"] for block in again["blocks"] if block["file"]})
    assert "Nothing to change." in cli("blocks", "apply", file).out
    file.write_text(file.read_text().replace("samples: 2", "samples: 3"))
    third = cli("blocks", "apply", file)
    assert "1 changed." in third.out
    assert third.out.startswith("small-config: type unchanged\n")
    config = load_model(model("mean")).config
    assert (3, 9, "blue") == (
        config.load("applied-few").samples,
        config.load("applied-many").samples,
        config.load("applied-many").colour,
    )


def test_trains_with_applied_block(server: str, home: Path, cli: CommandLine, tmp_path: Path) -> None:
    """A saved config is used by name, and --set changes one value of it."""
    (tmp_path / "small.yaml").write_text(BLOCKS.format(model=f"{MODELS}:mean"))
    assert 0 == cli("blocks", "apply", tmp_path).code
    files = cli("sample-data", model("mean"), "--out", tmp_path, "--periods", 6, "--json").json
    train = ("train", model("mean"), "--data", files["training"], "--config", "applied-many")
    runs = [cli(*train, *changes, "--json").json["run_id"] for changes in ([], ["--set", "samples=4"])]
    used = [cli("runs", "show", run, "--json").json["config"]["content"] for run in runs]
    assert [(9, "blue"), (4, "blue")] == [(content["samples"], content["colour"]) for content in used]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (None, "There is no file or folder"),
        ("- a list", "must be a mapping"),
        ("name: [", "not readable YAML"),
        ("name: x\nblock_type_slug: small-config", "missing key 'model'"),
        ("name: x\nblock_type_slug: other-config\nmodel: {model}", "is of type 'small-config'"),
        ("name: x\nblock_type_slug: small-config\nmodel: {model}\nfields: {{samples: many}}", "samples"),
        ("name: x\nblock_type_slug: small-config\nmodel: nothing.py:mean", "nothing.py"),
        ("name: Not A Name/\nblock_type_slug: small-config\nmodel: {model}", "'Not A Name/'"),
    ],
)
def test_refuses_block_document(server: str, cli: CommandLine, tmp_path: Path, content: str | None, names: str) -> None:
    """A document that cannot be applied is refused by file and key."""
    file = tmp_path / "block.yaml"
    if content is not None:
        file.write_text(content.format(model=f"{MODELS}:mean"))
    ended = cli("blocks", "apply", file)
    assert 2 == ended.code
    assert names in ended.err
    assert str(file) in ended.err or "nothing.py" in ended.err
    assert "Traceback" not in ended.err


def _checks(cli: CommandLine) -> tuple[int, bool, dict[str, str]]:
    ended = cli("doctor", "--json", "--file", "absent.yaml")
    return ended.code, ended.json["healthy"], {one["check"]: one["status"] for one in ended.json["checks"]}


def test_doctor_finds_all_well(server: str, home: Path, cli: CommandLine) -> None:
    """With everything in place the doctor exits with 0 and names what it looked at."""
    code, healthy, checks = _checks(cli)
    assert (0, True) == (code, healthy)
    assert {"versions", "server", "clock", "database", "store", "disk", "temporary disk", "models"} == set(checks)
    assert {"ok"} == {status for name, status in checks.items() if "disk" not in name}
    told = cli("doctor", "--file", "absent.yaml")
    assert (0, True) == (told.code, "All is well." in told.out)
    assert str(home / "artifacts") in told.out
    assert [] == list((home / "artifacts" / "tmp").glob("probe-*"))


def test_doctor_finds_broken_store(
    server: str, home: Path, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that cannot be written is the one error."""
    blocked = tmp_path / "store"
    blocked.write_text("in the way")
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_STORAGE_URL", str(blocked))
    code, healthy, checks = _checks(cli)
    assert (1, False, ["store"]) == (code, healthy, [name for name, status in checks.items() if status == "error"])
    assert str(blocked) in cli("doctor").out


def test_doctor_finds_broken_database(
    server: str, home: Path, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that cannot be opened is the one error."""
    file = tmp_path / "lineage.db"
    file.write_text("this is no database, and long enough to be told from one" * 20)
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_DATABASE_URL", f"sqlite:///{file}")
    code, healthy, checks = _checks(cli)
    assert (1, False, ["database"]) == (code, healthy, [name for name, status in checks.items() if status == "error"])


def test_doctor_finds_server_down(home: Path, cli: CommandLine) -> None:
    """A server that does not answer is named with how to start one."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        told = cli("doctor")
    assert 1 == told.code
    assert "http://127.0.0.1:9/api does not answer" in told.out
    assert "prefect server start" in told.out
    assert "Traceback" not in told.out + told.err


def test_doctor_warns_of_no_server(home: Path, cli: CommandLine) -> None:
    """Without a server set, each command starts its own: a warning, not an error."""
    with temporary_settings({PREFECT_API_URL: None}):
        code, healthy, checks = _checks(cli)
    assert (0, True, "warning") == (code, healthy, checks["server"])
