"""Secret values of configs reach the model, and nothing that is written."""

from __future__ import annotations

import asyncio
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import CommandLine, write_tables
from prefect.blocks.system import Secret
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from chapkit_flows import Model, ModelConfig, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.configs.documents import load_config
from chapkit_flows.errors import ChapkitFlowsError, ValidationFailed
from chapkit_flows.lineage.query import get_artifact, get_run, list_artifacts, list_runs

FILE = Path(__file__).parent / "models/secretive.py"
CANARY, NESTED = "canary-41b7", "canary-nested-9c2e"


def secretive(name: str) -> tuple[Model, list[tuple[str, str]]]:
    """A model, and what it has seen."""
    model = load_model(f"{FILE}:{name}")
    assert isinstance(model, Model)
    seen: list[tuple[str, str]] = model.definition.namespace["SEEN"]
    seen.clear()
    return model, seen


def save(model: Model, name: str, **values: Any) -> ModelConfig:
    """A saved config with the canaries, as a run refers to it."""
    config = model.config(token=CANARY, login={"user": "ana", "password": NESTED}, **values)
    config.save(name, overwrite=True)
    return asyncio.run(load_config(model.config, name))


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, str]:
    return {name: str(path) for name, path in write_tables(tmp_path / "data").items()}


def assert_nothing_written(home: Path) -> None:
    """No file of the store, no manifest and no database holds a canary."""
    files = [file for file in home.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert [] == [
        file for file in files if CANARY.encode() in file.read_bytes() or NESTED.encode() in file.read_bytes()
    ]


def test_model_gets_the_secrets_of_the_saved_config(server: str, home: Path, tables: dict[str, str]) -> None:
    """Training and prediction see the secret values, nested ones too; nothing that is kept holds them."""
    model, seen = secretive("secretive")
    trained = model.train(save(model, "with-secrets"), tables["training"])
    model.predict(trained.artifact_id, tables["historic"], tables["future"])
    assert [(CANARY, NESTED)] * 2 == seen
    config = get_run(open_resources().database, trained.run_id).config
    assert config is not None
    assert {"user": "ana", "password": "**********"} == config.content["login"]
    assert_nothing_written(home)


def test_changed_config_keeps_the_secrets(server: str, home: Path, tables: dict[str, str], cli: CommandLine) -> None:
    """A saved config that is changed for one run gives its secrets to that run and to the predictions after it."""
    model, seen = secretive("secretive")
    save(model, "with-secrets")
    given = ("--config", "with-secrets", "--set", "prediction_periods=2", "--json")
    trained = cli("train", f"{FILE}:secretive", "--data", tables["training"], *given).json["artifact_id"]
    model.predict(trained, tables["historic"], tables["future"])
    assert [(CANARY, NESTED)] * 2 == seen
    assert_nothing_written(home)


def test_prediction_without_the_saved_config_is_refused(server: str, home: Path, tables: dict[str, str]) -> None:
    """Secrets of a config that was never saved are gone after the training: predicting says so before it runs."""
    model, seen = secretive("secretive")
    trained = model.train(model.config(token=CANARY), tables["training"])
    with pytest.raises(ValidationFailed, match=r"token.*Save a config"):
        model.predict(trained.artifact_id, tables["historic"], tables["future"])
    assert [(CANARY, "")] == seen


def test_config_without_secrets_needs_no_saved_config(server: str, home: Path, tables: dict[str, str]) -> None:
    """A config whose secrets are empty is restored from lineage alone."""
    model, seen = secretive("secretive")
    trained = model.train(model.config(), tables["training"])
    model.predict(trained.artifact_id, tables["historic"], tables["future"])
    assert [("", "")] * 2 == seen


def test_commands_get_the_secrets(server: str, home: Path, tables: dict[str, str], tmp_path: Path) -> None:
    """A command reads the secrets in config.yml; the workspace that is kept has them masked."""
    model, _ = secretive("commanded")
    config = save(model, "with-secrets")
    expected = model.definition.namespace["digest"](
        yaml.safe_dump(config.values(reveal=True), allow_unicode=True, sort_keys=False)
    )
    trained = model.train(config, tables["training"])
    predicted = model.predict(trained.artifact_id, tables["historic"], tables["future"])
    resources = open_resources()
    for artifact_id in (trained.artifact_id, predicted.workspace_id):
        artifact = get_artifact(resources.database, str(artifact_id))
        folder = load(resources.store, artifact, folder=tmp_path / artifact.id)
        assert expected == (folder / "seen.txt").read_text()
        assert "**********" == yaml.safe_load((folder / "config.yml").read_text())["token"]
    assert_nothing_written(home)


ENVIRONMENT, IN_FILE, IN_BLOCK = "canary-environment-77d0", "canary-file-5ab3", "canary-block-e19f"
BLOCK = "${secret-block:secretive-canary/password}"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A secret that is kept elsewhere."""

    reference: str
    value: str


@pytest.fixture
def kept(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Kept]:
    """A secret of each kind, and a reference to it."""
    monkeypatch.setenv("SECRETIVE_CANARY", ENVIRONMENT)
    file = tmp_path / "canary.txt"
    file.write_text(f"{IN_FILE}\n")
    Secret(value={"password": IN_BLOCK, "port": 5432}).save("secretive-canary", overwrite=True)
    return {
        "env": Kept(reference="${env:SECRETIVE_CANARY}", value=ENVIRONMENT),
        "file": Kept(reference=f"${{file:{file}}}", value=IN_FILE),
        "secret-block": Kept(reference=BLOCK, value=IN_BLOCK),
    }


def save_reference(model: Model, kept: Kept, **values: Any) -> ModelConfig:
    config = model.config(token=kept.reference, login={"user": "ana", "password": BLOCK}, **values)
    config.save("with-references", overwrite=True)
    return asyncio.run(load_config(model.config, "with-references"))


def assert_no_canary(home: Path, said: str) -> None:
    """No canary is in the store, the lineage database or anything that the Prefect server keeps; `said` is."""
    APILogWorker.drain_all(timeout=30)
    EventsWorker.drain_all(timeout=30)
    folders = (home, Path(os.environ["PREFECT_HOME"]))
    content = {file: file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}
    assert any(said.encode() in text for text in content.values())
    for canary in (CANARY, NESTED, ENVIRONMENT, IN_FILE, IN_BLOCK):
        assert [] == [file for file, text in content.items() if canary.encode() in text]


KINDS = ["env", "file", "secret-block"]


@pytest.mark.parametrize("kind", KINDS)
def test_reference_is_resolved_in_the_run_only(
    kept: dict[str, Kept], home: Path, tables: dict[str, str], kind: str
) -> None:
    """The model sees what a reference leads to; the block, lineage and the server keep the reference."""
    model, seen = secretive("secretive")
    config = save_reference(model, kept[kind])
    trained = model.train(config, tables["training"])
    model.predict(trained.artifact_id, tables["historic"], tables["future"])
    assert [(kept[kind].value, IN_BLOCK)] * 2 == seen
    recorded = get_run(open_resources().database, trained.run_id).config
    assert recorded is not None
    assert (kept[kind].reference, BLOCK) == (recorded.content["token"], recorded.content["login"]["password"])
    assert_no_canary(home, kept[kind].reference)


def test_backtest_with_an_unresolvable_reference_stops_before_its_folds(
    server: str, home: Path, tables: dict[str, str]
) -> None:
    """A reference that leads to nothing is one finding of the backtest, not a failure of each fold."""
    model, seen = secretive("secretive")
    with pytest.raises(ValidationFailed, match=r"SECRETIVE_ABSENT is not set"):
        model.backtest(model.config(token="${env:SECRETIVE_ABSENT}"), tables["training"], plan={"splits": 2})
    assert [] == seen


@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_every_flow_resolves_references(
    kept: dict[str, Kept], home: Path, tables: dict[str, str], monkeypatch: pytest.MonkeyPatch, runner: str
) -> None:
    """Retraining and backtests give the model what references lead to, in whatever process, and keep none of it."""
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_TASK_RUNNER", runner)
    model, _ = secretive("strict")
    config = save_reference(model, kept["env"])
    assert model.retrain(config, tables["training"]).is_new
    assert not model.retrain(config, tables["training"]).is_new
    result = model.backtest(config, tables["training"], plan={"periods": 2, "splits": 2})
    assert {"done": 2, "reused": 0, "failed": 0} == result.folds
    assert_no_canary(home, kept["env"].reference)


@pytest.mark.parametrize("flow", ["retrain", "backtest"])
def test_failing_flow_tells_no_secret(kept: dict[str, Kept], home: Path, tables: dict[str, str], flow: str) -> None:
    """What a model raises is masked in the error of whatever flow called it, and in all that is written."""
    model, _ = secretive("leaky")
    with pytest.raises(ChapkitFlowsError) as failure:
        getattr(model, flow)(save_reference(model, kept["env"]), tables["training"])
    assert "**********" in str(failure.value)
    assert_no_canary(home, "**********")


def test_prediction_needs_no_saved_config_for_references(
    kept: dict[str, Kept], home: Path, tables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lineage keeps the reference, and a prediction sees the value that it leads to then."""
    model, seen = secretive("secretive")
    trained = model.train(model.config(token=kept["env"].reference), tables["training"])
    monkeypatch.setenv("SECRETIVE_CANARY", "rotated-canary")
    model.predict(trained.artifact_id, tables["historic"], tables["future"])
    assert [(ENVIRONMENT, ""), ("rotated-canary", "")] == seen


def test_commands_get_what_references_lead_to(
    kept: dict[str, Kept], home: Path, tables: dict[str, str], tmp_path: Path
) -> None:
    """A command reads the values in config.yml; the workspace that is kept has them masked."""
    model, _ = secretive("commanded")
    config = save_reference(model, kept["file"])
    real = config.values() | {"token": IN_FILE, "login": {"user": "ana", "password": IN_BLOCK}}
    trained = model.train(config, tables["training"])
    resources = open_resources()
    artifact = get_artifact(resources.database, str(trained.artifact_id))
    folder = load(resources.store, artifact, folder=tmp_path / "workspace")
    expected = model.definition.namespace["digest"](yaml.safe_dump(real, allow_unicode=True, sort_keys=False))
    assert expected == (folder / "seen.txt").read_text()
    assert "**********" == yaml.safe_load((folder / "config.yml").read_text())["token"]
    assert_no_canary(home, BLOCK)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["leaky", "leaky_check", "leaky_commands"])
def test_failing_model_tells_no_secret(
    kept: dict[str, Kept], home: Path, tables: dict[str, str], tmp_path: Path, name: str, kind: str
) -> None:
    """What a model raises, finds or prints has its secrets masked: in the error, its traceback, logs and artifacts."""
    model, _ = secretive(name)
    config = save_reference(model, kept[kind])
    with pytest.raises(ChapkitFlowsError) as failure:
        model.train(config, tables["training"])
    told = "".join(traceback.format_exception(failure.value))
    assert "**********" in str(failure.value)
    assert [] == [canary for canary in (kept[kind].value, IN_BLOCK) if canary in told]
    resources = open_resources()
    assert "**********" in (list_runs(resources.database, limit=1)[0].error or "")
    for artifact in list_artifacts(resources.database, kind="training_workspace"):
        folder = load(resources.store, artifact, folder=tmp_path / artifact.id)
        written = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
        assert b"**********" in written
        assert [] == [canary for canary in (kept[kind].value, IN_BLOCK) if canary.encode() in written]
    assert_no_canary(home, "**********")


def test_traceback_of_a_failing_model_is_logged_masked(
    kept: dict[str, Kept], home: Path, tables: dict[str, str]
) -> None:
    """The place where the model failed is still in the log, though its message held a secret."""
    model, _ = secretive("leaky")
    with pytest.raises(ChapkitFlowsError):
        model.train(save_reference(model, kept["env"]), tables["training"])
    assert_no_canary(home, "ConnectionError: https://ana:**********@example.org refused")


UNRESOLVABLE = {
    "unset": ("${env:SECRETIVE_ABSENT}", "the environment variable SECRETIVE_ABSENT is not set, or empty"),
    "no file": ("${file:/nowhere/canary}", "No such file or directory. Mount the file"),
    "no block": ("${secret-block:secretive-absent}", "there is no saved block secret/secretive-absent"),
    "no key": ("${secret-block:secretive-canary/user}", "the block secret/secretive-canary has no key 'user'"),
    "several values": ("${secret-block:secretive-canary}", "Name one: ${secret-block:secretive-canary/KEY}"),
}


@pytest.mark.parametrize(("reference", "reason"), UNRESOLVABLE.values(), ids=list(UNRESOLVABLE))
def test_unresolvable_reference_stops_the_run_before_the_model(
    kept: dict[str, Kept], home: Path, tables: dict[str, str], cli: CommandLine, reference: str, reason: str
) -> None:
    """A reference that leads to nothing fails the run by field and reference; `validate` finds it, too."""
    model, seen = secretive("secretive")
    with pytest.raises(ValidationFailed) as failure:
        model.train(model.config(token=reference), tables["training"])
    (found,) = failure.value.diagnostics
    assert ("unresolved_reference", "config.token") == (found.code, found.field)
    assert f"config.token is {reference}, which leads to nothing: " in found.message
    assert reason in found.message
    assert ([], "failed") == (seen, list_runs(open_resources().database, limit=1)[0].status)
    given = ("--data", tables["training"], "--set", f"token={reference}", "--json")
    checked = cli("validate", f"{FILE}:secretive", *given)
    assert (2, ["unresolved_reference"]) == (checked.code, [one["code"] for one in checked.json["diagnostics"]])
    assert_no_canary(home, "unresolved_reference")


def test_reference_in_a_plain_field_is_refused(kept: dict[str, Kept], home: Path, tables: dict[str, str]) -> None:
    """A value that would be shown and stored may not be a reference to a secret."""
    model, seen = secretive("secretive")
    with pytest.raises(
        ValidationFailed, match=r"config.note: \$\{env:SECRETIVE_CANARY\} is a reference to a secret, but"
    ):
        model.train(model.config(note="${env:SECRETIVE_CANARY}"), tables["training"])
    assert [] == seen
