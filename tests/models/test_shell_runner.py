"""The shell runner: what its commands find in their workspace, and what becomes of what they leave."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from geojson_pydantic import FeatureCollection
from pydantic import Field

from chapkit_flows import Diagnostic, ModelConfig, Project, ShellModelRunner
from chapkit_flows.errors import InvalidModel, ScriptFailed
from chapkit_flows.models.shell import ShellPrediction
from chapkit_flows.models.workspace import Workspace

# Writes down its arguments and every file that it finds, text and all.
LOOK = """
import json, sys
from pathlib import Path
found = {p.as_posix(): p.read_text() for p in Path().rglob("*") if p.is_file() and p.parts[0] != ".run"}
Path(sys.argv[1]).write_text(json.dumps({"arguments": sys.argv[2:], "files": found}))
"""
PREDICT = LOOK + 'Path("predictions.csv").write_text("time_period,location,prediction\\n2020-03,001,1\\n")\n'
PYTHON = shlex.quote(sys.executable)
TRAIN_COMMAND = f"{PYTHON} train.py training.json {{data_file}} {{geo_file}} end"
PREDICT_COMMAND = f"{PYTHON} predict.py seen.json {{historic_file}} {{future_file}} {{output_file}} {{geo_file}} end"


class ShellKindConfig(ModelConfig):
    """Settings with an alias."""

    n_lags: int = Field(default=3, alias="n-lags")


CONFIG = ShellKindConfig.model_validate({"n-lags": 5, "colour": "blue", "levels": {"a": [1, None]}})
DATA = pd.DataFrame(
    {
        "time_period": ["2020-01", "2020-02", "2020-01"],
        "location": ["001", "001", "NA"],
        "disease_cases": [1.0, float("nan"), 0.1],
        "flood": ["yes", "no", "NA"],
        "note": ["a, b", 'say "x"', "é\nnew"],
    }
)
CSV = (
    "time_period,location,disease_cases,flood,note\n"
    '2020-01,001,1.0,yes,"a, b"\n'
    '2020-02,001,,no,"say ""x"""\n'
    '2020-01,NA,0.1,NA,"é\nnew"\n'
)
FUTURE = pd.DataFrame({"time_period": ["2020-03"], "location": ["001"]})
GEO: FeatureCollection[Any] = FeatureCollection.model_validate(
    {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": "001",
                "properties": {"name": "é"},
                "geometry": {"type": "Point", "coordinates": [1, 2]},
            }
        ],
    }
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a train and a predict script."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text(LOOK)
    (project / "predict.py").write_text(PREDICT)
    return project


Make = Callable[..., ShellModelRunner]


@pytest.fixture
def make(folder: Path) -> Make:
    def make(train: str = TRAIN_COMMAND, predict: str = PREDICT_COMMAND, **options: Any) -> ShellModelRunner:
        timeout = options.pop("timeout_seconds", 60.0)
        return ShellModelRunner(train, predict, project=Project(folder=folder, timeout_seconds=timeout), **options)

    return make


def script(folder: Path, name: str, source: str) -> str:
    (folder / name).write_text(source)
    return f"{PYTHON} {name}"


def read(workspace: Workspace, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.path / name).read_text())
    return found


async def predict(runner: ShellModelRunner, trained: Any, geo: Any = None, config: ModelConfig = CONFIG) -> Workspace:
    predicted = await runner.on_predict(config, trained, DATA, FUTURE, geo)
    assert isinstance(predicted, ShellPrediction)
    return predicted.workspace


async def test_training_workspace_holds_project_config_and_data(make: Make) -> None:
    """A train command finds the project's files, its config by alias, and the data with every text unchanged."""
    trained = await make().on_train(CONFIG, DATA)
    seen = read(trained, "training.json")
    assert ["data.csv", "", "end"] == seen["arguments"]
    assert {"train.py", "predict.py", "config.yml", "data.csv"} == seen["files"].keys()
    assert CSV == seen["files"]["data.csv"]
    expected = {
        "prediction_periods": 3,
        "additional_continuous_covariates": [],
        "n-lags": 5,
        "colour": "blue",
        "levels": {"a": [1, None]},
    }
    assert expected == yaml.safe_load(seen["files"]["config.yml"])


async def test_chap_core_config_nests_the_models_own_values(make: Make) -> None:
    """In the chap_core format the reserved fields stand at the top and all others under user_option_values."""
    trained = await make(config_format="chap_core").on_train(CONFIG, DATA)
    expected = {
        "prediction_periods": 3,
        "additional_continuous_covariates": [],
        "user_option_values": {"n-lags": 5, "colour": "blue", "levels": {"a": [1, None]}},
    }
    assert expected == yaml.safe_load((trained.path / "config.yml").read_text())
    assert CONFIG == ShellKindConfig.model_validate(expected)


async def test_chap_core_config_without_own_values(make: Make) -> None:
    """A config of reserved fields only has nothing to nest."""
    trained = await make(config_format="chap_core").on_train(ModelConfig(), DATA)
    assert {"prediction_periods": 3, "additional_continuous_covariates": []} == yaml.safe_load(
        (trained.path / "config.yml").read_text()
    )


async def test_polygons_are_written_when_given(make: Make) -> None:
    """With polygons there is a geo.json, named in place of its placeholder, that is the same GeoJSON."""
    trained = await make().on_train(CONFIG, DATA, GEO)
    seen = read(trained, "training.json")
    assert ["data.csv", "geo.json", "end"] == seen["arguments"]
    written = json.loads(seen["files"]["geo.json"])
    assert GEO.model_dump(mode="json", exclude_unset=True) == written
    assert ("001", {"name": "é"}) == (written["features"][0]["id"], written["features"][0]["properties"])


async def test_prediction_restores_the_training_workspace(make: Make) -> None:
    """A predict command finds all that training left, a fresh config, and the two tables; training stays as it was."""
    runner = make()
    trained = await runner.on_train(CONFIG, DATA)
    before = sorted(path.name for path in trained.path.iterdir())

    workspace = await predict(runner, trained, config=CONFIG.model_copy(update={"prediction_periods": 7}))

    seen = read(workspace, "seen.json")
    assert ["historic.csv", "future.csv", "predictions.csv", "", "end"] == seen["arguments"]
    expected = {"train.py", "predict.py", "config.yml", "data.csv", "training.json", "historic.csv", "future.csv"}
    assert expected == seen["files"].keys()
    assert (CSV, "time_period,location\n2020-03,001\n") == (seen["files"]["historic.csv"], seen["files"]["future.csv"])
    assert 7 == yaml.safe_load(seen["files"]["config.yml"])["prediction_periods"]
    assert before == sorted(path.name for path in trained.path.iterdir())
    assert trained.path != workspace.path


async def test_prediction_works_from_a_plain_folder(make: Make, tmp_path: Path) -> None:
    """The training workspace may come from anywhere, such as the artifact store."""
    trained = await make().on_train(CONFIG, DATA)
    restored = tmp_path / "restored"
    restored.mkdir()
    (restored / "model.bin").write_bytes((trained.path / "training.json").read_bytes())
    (restored / "predict.py").write_text(PREDICT)
    workspace = await predict(make(), restored, GEO)
    assert {"model.bin", "geo.json"} <= read(workspace, "seen.json")["files"].keys()


@pytest.mark.parametrize("left_by", ["project", "training"])
async def test_stale_predictions_are_not_taken(make: Make, folder: Path, left_by: str) -> None:
    """A predictions.csv of old does not pass for the result of a predict command that wrote none."""
    stale = 'open("predictions.csv", "w").write("stale")'
    if left_by == "project":
        (folder / "predictions.csv").write_text("stale")
        stale = ""
    runner = make(script(folder, "train.py", stale), script(folder, "predict.py", "print('nothing to do')"))
    trained = await runner.on_train(CONFIG, DATA)
    assert "stale" == (trained.path / "predictions.csv").read_text()
    with pytest.raises(ScriptFailed, match=r"exited with 0 but wrote no predictions\.csv.*\n.*stderr") as failed:
        await predict(runner, trained)
    assert (0, "nothing to do") == (failed.value.workspace.exit_code, failed.value.workspace.stdout)


async def test_file_named_with_shell_characters_is_safe(make: Make, folder: Path) -> None:
    """A command runs without a shell: what would be syntax there is a plain argument here."""
    arguments = "'a b' ';' '$(touch owned)' '`touch owned`' '>owned' '{data_file.__class__}' '{0}' '{{x}}'"
    trained = await make(f"{PYTHON} train.py training.json {arguments}").on_train(CONFIG, DATA)
    assert shlex.split(arguments) == read(trained, "training.json")["arguments"]
    assert not (trained.path / "owned").exists()


FAIL = """
import sys
print("read the data")
for number in range(30):
    print("problem", number, file=sys.stderr)
open("half-done.txt", "w").write("half")
sys.exit(3)
"""


@pytest.mark.parametrize("phase", ["train", "predict"])
async def test_failed_command_keeps_its_workspace(make: Make, folder: Path, phase: str) -> None:
    """A non-zero exit says which command failed and the end of stderr, and keeps all that it left."""
    failing = script(folder, "fail.py", FAIL)
    runner = make(**{phase: failing})
    with pytest.raises(ScriptFailed) as failed:
        await predict(runner, await runner.on_train(CONFIG, DATA))
    message, workspace = str(failed.value), failed.value.workspace
    assert message.startswith(f"The {phase} command exited with 3: ")
    assert "fail.py" in message
    assert "problem 29" in message
    assert "problem 5\n" not in message
    assert {"exit_code": 3, "stdout": "read the data", "stderr": workspace.stderr} == runner.describe(workspace)
    assert [f"problem {number}" for number in range(30)] == workspace.stderr.splitlines()
    assert "half" == (workspace.path / "half-done.txt").read_text()
    assert "read the data\n" == (workspace.path / f".run/{phase}.stdout").read_text()
    assert workspace.stderr + "\n" == (workspace.path / f".run/{phase}.stderr").read_text()


async def test_command_that_hangs_is_stopped(make: Make, folder: Path) -> None:
    """A command beyond its time limit fails with the limit, and keeps what it wrote so far."""
    hang = script(folder, "hang.py", "import time; print('working', flush=True); time.sleep(600)")
    with pytest.raises(ScriptFailed, match=r"ran longer than 1 seconds and was stopped: .*hang\.py") as failed:
        await make(hang, timeout_seconds=1.0).on_train(CONFIG, DATA)
    assert "working" == failed.value.workspace.stdout
    assert failed.value.workspace.exit_code < 0


async def test_time_limit_comes_from_the_settings(make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project without a limit of its own has that of the settings."""
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_SCRIPT_TIMEOUT_SECONDS", "0.5")
    with pytest.raises(ScriptFailed, match=r"ran longer than 0\.5 seconds"):
        await make("sleep 600", timeout_seconds=None).on_train(CONFIG, DATA)


async def test_program_that_is_not_there(make: Make) -> None:
    """A program that is not installed is named, with the code that shells give it."""
    with pytest.raises(ScriptFailed, match=r"exited with 127: no-such-r train\.R") as failed:
        await make("no-such-r train.R").on_train(CONFIG, DATA)
    assert "no-such-r: No such file or directory" in str(failed.value)


async def test_program_of_the_project_runs(make: Make, folder: Path) -> None:
    """An executable file of the project can be the program: permissions are copied."""
    (folder / "train.sh").write_text("#!/bin/sh\necho trained > model.txt\n")
    (folder / "train.sh").chmod(0o755)
    trained = await make("./train.sh").on_train(CONFIG, DATA)
    assert "trained\n" == (trained.path / "model.txt").read_text()


async def test_commands_at_once_do_not_meet(make: Make) -> None:
    """Two trainings of one runner work in folders of their own."""
    runner = make()
    configs = [CONFIG.model_copy(update={"n_lags": number}) for number in (1, 2)]
    trained = await asyncio.gather(*(runner.on_train(config, DATA) for config in configs))
    written = [yaml.safe_load((one.path / "config.yml").read_text())["n-lags"] for one in trained]
    assert [1, 2] == written


async def test_workspace_goes_away_with_its_last_reference(make: Make) -> None:
    """No folder stays behind once nobody holds the workspace, though the failure's own copy still did."""
    trained = await make().on_train(CONFIG, DATA)
    path = trained.path
    assert path.is_dir()
    del trained
    assert not path.exists()


def test_checks_of_the_user_are_called(make: Make) -> None:
    """A shell model may bring Python functions that check its inputs; without them there are no findings."""
    found = [Diagnostic.warning("odd", "It is odd.")]
    runner = make(on_validate_train=lambda *given: found, on_validate_predict=lambda *given: found)
    assert found is runner.on_validate_train(CONFIG, DATA)
    assert found is runner.on_validate_predict(CONFIG, DATA, FUTURE)
    assert ([], []) == (make().on_validate_train(CONFIG, DATA), make().on_validate_predict(CONFIG, DATA, FUTURE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", PREDICT_COMMAND), "The command is empty"),
        ((TRAIN_COMMAND, "Rscript 'predict.R"), "No closing quotation"),
    ],
)
def test_unusable_command_is_refused_when_the_runner_is_made(arguments: tuple[str, str], message: str) -> None:
    """A command that can never run is an error of the model's file, not of a later run."""
    with pytest.raises(InvalidModel, match=message):
        ShellModelRunner(*arguments)


def test_unknown_config_format_is_refused() -> None:
    """There are two formats."""
    with pytest.raises(InvalidModel, match="config_format is 'nested'; write flat or chap_core"):
        ShellModelRunner("a", "b", config_format="nested")  # type: ignore[arg-type]  # that is what is tested


def test_project_is_the_folder_of_the_file_that_makes_the_runner() -> None:
    """Without a project of its own a runner takes the folder of the model's file."""
    assert Path(__file__).parent.resolve() == ShellModelRunner("a", "b").project.folder
