"""Secret values of configs reach the model, and nothing that is written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import CommandLine, write_tables

from chapkit_flows import Model, ModelConfig, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.configs.documents import load_config
from chapkit_flows.errors import ValidationFailed
from chapkit_flows.lineage.query import get_artifact, get_run

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
