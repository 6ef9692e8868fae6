"""Training again only if there is something new, and predicting with the newest model."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write_tables
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.errors import ChapkitFlowsError, ValidationFailed
from chapkit_flows.flows import retrain as module
from chapkit_flows.flows.results import RetrainResult
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import get_artifact, get_run, latest_training, list_runs
from chapkit_flows.upkeep.trash import delete

# In production each run is a process of its own; here one process imports several copies of a model.
pytestmark = pytest.mark.filterwarnings("ignore:Type .* that matches existing registered type")
MODEL = '''
import os
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class AgainConfig(ModelConfig):
    """Settings of the model that is trained again."""
    level: int = 1

def on_train(config, data, geo=None):
    if os.environ.get("FAULT"):
        raise ValueError("no rain fell")
    return {"level": config.level}

def on_predict(config, model, historic, future, geo=None):
    return future[["time_period", "location"]].assign(sample_0=float(model["level"]))

again = Model(name="again", config=AgainConfig, runner=FunctionalModelRunner(on_train, on_predict))
'''


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    return write_tables(tmp_path / "tables")


@pytest.fixture
def again(server: str, home: Path, tmp_path: Path) -> Model:
    return _write(tmp_path / "code", MODEL)


def _write(folder: Path, text: str) -> Model:
    folder.mkdir()
    (folder / "again.py").write_text(text)
    model = load_model(folder / "again.py")
    assert isinstance(model, Model)
    return model


def _run(result: RetrainResult) -> RunFact:
    return get_run(open_resources().database, result.run_id)


async def _look(flow_run_id: str | None) -> tuple[Any, list[Any]]:
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[str(flow_run_id)]))
    async with get_client() as client:
        return (await client.read_flow_run(flow_run_id)).state, await client.read_artifacts(artifact_filter=of_run)


def test_skips_what_is_not_new(again: Model, tables: dict[str, Path]) -> None:
    """The second of two equal retrainings trains nothing, keeps the model in use, and leaves a trace that says so."""
    first = again.retrain(again.config(), str(tables["training"]), str(tables["geo"]))
    second = again.retrain(again.config(), str(tables["training"]), str(tables["geo"]))
    assert (True, False) == (first.is_new, second.is_new)
    assert first.artifact_id == second.artifact_id
    run = _run(second)
    assert ("retrain", "completed", ()) == (run.flow, run.status, run.outputs)
    assert ["data", "geo", "model"] == [edge.role for edge in run.inputs]
    assert first.artifact_id == next(edge.artifact.id for edge in run.inputs if edge.role == "model")


def test_prefect_shows_that_nothing_is_new(again: Model, tables: dict[str, Path]) -> None:
    """The state of the run is completed under a name of its own, and its artifact names the model in use."""
    first = again.retrain(again.config(), str(tables["training"]))
    second = again.retrain(again.config(), str(tables["training"]))
    state, (shown,) = asyncio.run(_look(second.flow_run_id))
    assert ("COMPLETED", "NothingNew") == (state.type.value, state.name)
    assert first.artifact_id in state.message
    assert ("markdown", "again-retrain") == (shown.type, shown.key)
    assert "## again: nothing new" in shown.data
    assert f"`{first.artifact_id}`" in shown.data
    assert "again@latest" in shown.data
    trained, (summary,) = asyncio.run(_look(first.flow_run_id))
    assert "Completed" == trained.name
    assert "## again: trained" in summary.data


def test_a_training_counts_too(again: Model, tables: dict[str, Path]) -> None:
    """A retraining after an equal training trains nothing."""
    trained = again.train(again.config(), str(tables["training"]))
    assert trained.artifact_id == again.retrain(again.config(), str(tables["training"])).artifact_id


def test_equal_bytes_elsewhere_are_not_new(again: Model, tables: dict[str, Path], tmp_path: Path) -> None:
    """The content of the data counts, not where it is."""
    again.retrain(again.config(), str(tables["training"]))
    moved = shutil.copy(tables["training"], tmp_path / "moved.csv")
    assert not again.retrain(again.config(), str(moved)).is_new


CHANGES: dict[str, Callable[[Model, dict[str, Path]], RetrainResult]] = {
    "data": lambda again, tables: again.retrain(again.config(), str(tables["historic"])),
    "geo": lambda again, tables: again.retrain(again.config(), str(tables["training"]), str(tables["geo"])),
    "config": lambda again, tables: again.retrain(again.config(level=2), str(tables["training"])),
    "prediction_periods": lambda again, tables: again.retrain(
        again.config(), str(tables["training"]), prediction_periods=5
    ),
    "force": lambda again, tables: again.retrain(again.config(), str(tables["training"]), force=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_trains_on_what_is_new(
    again: Model, tables: dict[str, Path], change: Callable[[Model, dict[str, Path]], RetrainResult]
) -> None:
    """Other data, polygons, config or horizon, or the wish to, train a model that is then in use."""
    with tables["historic"].open("a", encoding="utf-8") as file:
        file.write("\n")  # other bytes than those of the training
    first = again.retrain(again.config(), str(tables["training"]))
    second = change(again, tables)
    assert second.is_new
    assert first.artifact_id != second.artifact_id
    latest = latest_training(open_resources().database, "again")
    assert latest is not None
    assert second.run_id == latest.id


@pytest.mark.parametrize(
    ("before", "after"),
    [("level: int = 1", "level: int = 1  # one"), ('name="again"', 'name="again", min_prediction_periods=2')],
)
def test_other_code_is_new(again: Model, tables: dict[str, Path], tmp_path: Path, before: str, after: str) -> None:
    """A model whose file has changed is trained again."""
    again.retrain(again.config(), str(tables["training"]))
    changed = _write(tmp_path / "changed", MODEL.replace(before, after))
    assert changed.retrain(changed.config(), str(tables["training"])).is_new
    assert not changed.retrain(changed.config(), str(tables["training"])).is_new


SCRIPTED = '''
import sys
from pathlib import Path
from chapkit_flows import Model, ModelConfig, Project, ShellModelRunner

class ScriptedConfig(ModelConfig):
    """No settings."""

here = Path(__file__).parent
scripted = Model(
    name="scripted",
    config=ScriptedConfig,
    runner=ShellModelRunner(f"{sys.executable} fit.py", "true", project=Project(folder=here, include=["fit.py"])),
)
'''


def test_other_script_is_new(server: str, home: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    """A model of commands is trained again when a file of its project has changed, in a git repository or not."""
    results = []
    for number, script in enumerate(("print(1)", "print(1)", "print(2)")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "scripted.py").write_text(SCRIPTED)
        (folder / "fit.py").write_text(script)
        scripted = load_model(folder / "scripted.py")
        results.append(scripted.retrain(scripted.config(), str(tables["training"])))
    assert [True, False, True] == [result.is_new for result in results]


def test_saved_configs_in_turn_are_not_new_to_each_other(again: Model, tables: dict[str, Path]) -> None:
    """Of two saved configs each looks for what is new since its own last training, and says if another is in use."""
    configs = []
    for level in (1, 2):
        config = again.config(level=level)
        config.save(f"level-{level}", overwrite=True)
        configs.append(config)
    done = [again.retrain(config, str(tables["training"])) for config in configs * 2]
    assert [True, True, False, False] == [result.is_new for result in done]
    assert done[0].artifact_id == done[2].artifact_id
    texts = [asyncio.run(_look(result.flow_run_id))[1][0].data for result in done[2:]]
    assert [True, False] == ["Another config was trained since." in text for text in texts]
    changed = again.config(level=3)
    changed.save("level-1", overwrite=True)
    assert again.retrain(changed, str(tables["training"])).is_new
    configs[0].save("level-1", overwrite=True)
    assert again.retrain(configs[0], str(tables["training"])).is_new


def test_failed_retraining_leaves_the_model_in_use(
    again: Model, tables: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a retraining that failed, predictions use the model before it; the next retraining tries again."""
    first = again.retrain(again.config(), str(tables["training"]))
    monkeypatch.setenv("FAULT", "raises")
    with pytest.raises(ChapkitFlowsError, match="no rain fell"):
        again.retrain(again.config(level=2), str(tables["training"]))
    predicted = again.predict("again@latest", str(tables["historic"]), str(tables["future"]))
    used = next(e.artifact.id for e in get_run(open_resources().database, predicted.run_id).inputs if e.role == "model")
    assert first.artifact_id == used
    monkeypatch.delenv("FAULT")
    assert again.retrain(again.config(level=2), str(tables["training"])).is_new


def test_latest_passes_over_the_trash(again: Model, tables: dict[str, Path]) -> None:
    """When the newest model is in the trash, the one before it is in use."""
    first = again.retrain(again.config(), str(tables["training"]))
    second = again.retrain(again.config(level=2), str(tables["training"]))
    delete(open_resources(), [second.artifact_id], actor="ana", reason="bad data")
    latest = latest_training(open_resources().database, "again")
    assert latest is not None
    assert first.artifact_id == latest.output("model").id


@pytest.mark.parametrize(
    ("reference", "code", "says"),
    [
        ("again@latest", "training_artifact_not_found", "no training of a model 'again' has completed"),
        ("again@champion", "unknown_alias", "Write again@latest"),
    ],
)
def test_refuses_alias(again: Model, tables: dict[str, Path], reference: str, code: str, says: str) -> None:
    """An alias that names no trained model is refused, with what to write instead."""
    with pytest.raises(ValidationFailed, match=says) as refused:
        again.predict(reference, str(tables["historic"]), str(tables["future"]))
    assert [code] == [found.code for found in refused.value.diagnostics]


def test_command_line_predicts_with_the_latest(again: Model, tables: dict[str, Path], cli: CommandLine) -> None:
    """`predict NAME@latest` finds the newest trained model, and where its code is."""
    trained = again.retrain(again.config(level=4), str(tables["training"]))
    inputs = ("--historic", tables["historic"], "--future", tables["future"])
    predicted = cli("predict", "again@latest", *inputs, "--json").json
    run = get_run(open_resources().database, predicted["run_id"])
    assert trained.artifact_id == next(edge.artifact.id for edge in run.inputs if edge.role == "model")
    assert "again@latest" == run.parameters["model"]
    assert "prediction" == get_artifact(open_resources().database, predicted["artifact_id"]).kind


def test_retry_after_nothing_new_says_so_again(
    again: Model, tables: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retried run that could not publish why it trained nothing is one run, and ends as it should."""
    publish, failures = module.publish_nothing_new, [ConnectionError("the server went away")]

    async def fail_once(*arguments: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        await publish(*arguments, **options)

    monkeypatch.setattr(module, "publish_nothing_new", fail_once)
    first = again.retrain(again.config(), str(tables["training"]))
    second = again.retrain.with_options(retries=1)(again.config(), str(tables["training"]))
    assert (first.artifact_id, False) == (second.artifact_id, second.is_new)
    assert 2 == len(list_runs(open_resources().database))
