"""What may be loaded to predict with: no pickle where they are switched off, nothing damaged, nothing too large."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from command_line import CommandLine, Ended, model, write_tables

from chapkit_flows import load_model, open_resources
from chapkit_flows.lineage.query import get_artifact, list_artifacts

SETTING = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_{}"


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    return write_tables(tmp_path)


@pytest.fixture
def trained(server: str, home: Path, tables: dict[str, Path]) -> str:
    """The id of a training artifact that is a pickle."""
    mean = load_model(model("mean"))
    return mean.train(mean.config(), str(tables["training"])).artifact_id


def predict(cli: CommandLine, artifact_id: str, tables: dict[str, Path]) -> Ended:
    return cli("predict", artifact_id, "--historic", tables["historic"], "--future", tables["future"])


@pytest.mark.parametrize(
    ("setting", "value", "names"),
    [
        ("ALLOW_PICKLE", "false", ["allow_pickle", "is a pickle"]),
        ("MAX_LOAD_BYTES", "7", ["max_load_bytes", "{size} bytes", "at most 7 may be loaded"]),
    ],
)
def test_setting_refuses_to_load(
    cli: CommandLine,
    trained: str,
    tables: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    value: str,
    names: list[str],
) -> None:
    """A model that the settings keep from being loaded is an error that names the setting, and nothing is predicted."""
    monkeypatch.setenv(SETTING.format(setting), value)
    ended = predict(cli, trained, tables)
    size = get_artifact(open_resources().database, trained).size
    assert 2 == ended.code
    assert [] == [name for name in names if name.format(size=size) not in ended.err]
    assert [] == list_artifacts(open_resources().database, kind="prediction")


def test_no_limit(cli: CommandLine, trained: str, tables: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of 0 any model is loaded."""
    monkeypatch.setenv(SETTING.format("MAX_LOAD_BYTES"), "0")
    assert 0 == predict(cli, trained, tables).code


class Planted:
    """A pickle that shows that it was read."""

    def __reduce__(self) -> object:
        return (open, (str(self.trace), "w"))

    def __init__(self, trace: Path) -> None:
        self.trace = trace


def test_planted_pickle_is_not_run(cli: CommandLine, trained: str, tables: dict[str, Path], tmp_path: Path) -> None:
    """A pickle that was put in the place of the recorded one is an error, and its code does not run."""
    resources = open_resources()
    digest = get_artifact(resources.database, trained).digest
    path = Path(resources.store.url) / "objects" / "sha256" / digest[7:9] / digest[9:]
    path.unlink()
    path.write_bytes(pickle.dumps(Planted(tmp_path / "trace")))
    ended = predict(cli, trained, tables)
    assert 2 == ended.code
    assert digest in ended.err
    assert not (tmp_path / "trace").exists()
