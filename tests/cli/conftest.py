"""The command line, and a home in which a model was trained and has predicted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from command_line import CommandLine, Story, model, write_tables

from chapkit_flows import load_model, open_resources
from chapkit_flows.lineage.query import get_run


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Run commands within this process."""
    return CommandLine(capsys, monkeypatch)


@pytest.fixture(scope="module")
def story(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(folder / "home"))
        tables = write_tables(folder / "data")
        shell = load_model(model("shell"))
        trained = shell.train(shell.config(label="told"), str(tables["training"]))
        predicted = shell.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
        training = get_run(open_resources().database, trained.run_id)
        dataset = next(edge.artifact.id for edge in training.inputs if edge.role == "data")
        yield Story(tables=tables, trained=trained, predicted=predicted, dataset=dataset)
