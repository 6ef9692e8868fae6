"""The commands that run a model: train, predict, validate; and how all commands are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import MODELS, CommandLine, Story, model, write_tables

from chapkit_flows import __version__, open_resources
from chapkit_flows.lineage.query import get_run, list_runs

RESULT = {"run_id", "status", "artifact_id", "flow_run_id"}
HEAVY = "prefect pandas numpy pyarrow sqlalchemy pydantic rich fsspec"


def test_help_is_quick() -> None:
    """Help needs neither Prefect nor pandas, nor anything else that takes time to import."""
    code = f"""
import sys
from chapkit_flows.cli.main import main
try:
    main(["--help"])
finally:
    print(sorted(set({HEAVY.split()}) & set(sys.modules)), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "sample-data" in ended.stdout
    assert "[]\n" == ended.stderr


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(["--help"], ""), (["runs", "list"], "1"), (["runs", "list", "--json"], ""), (["runs", "show", "x"], "1")],
)
def test_reader_that_stops_reading_is_no_error(home: Path, arguments: list[str], unbuffered: str) -> None:
    """Output into a pipe that nobody reads ends the command quietly, as the shell expects it."""
    reading, writing = os.pipe()
    os.close(reading)
    both = {"stdout": writing, "stderr": writing if arguments[-1] == "x" else subprocess.PIPE}
    program = [sys.executable, "-m", "chapkit_flows.cli.main", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(program, **both, text=True, timeout=60, env=environment)
    os.close(writing)
    assert (141, "") == (ended.returncode, ended.stderr or "")


@pytest.mark.parametrize("command", ["train", "predict", "validate", "lineage", "sample-data", "doctor"])
def test_command_has_help(cli: CommandLine, command: str) -> None:
    """Each command explains itself."""
    ended = cli(command, "--help")
    assert 0 == ended.code
    assert f"usage: chapkit-flows {command}" in ended.out
    assert "--json" in ended.out


def test_tells_version(cli: CommandLine) -> None:
    """The version is that of the package."""
    assert f"chapkit-flows {__version__}\n" == cli("--version").out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["train", "small.py"], "--data"),
        (["train", "small.py", "--data", "x.csv", "--speed", "9"], "--speed"),
        (["train", "small.py", "--data", "x.csv", "--prediction-periods", "many"], "invalid int value: 'many'"),
        (["runs"], "COMMAND"),
        (["runs", "list", "--status", "happy"], "invalid choice: 'happy'"),
        (["lineage", "X", "--up", "--down"], "not allowed with"),
        (["lineage", "X", "--depth", "0"], "argument --depth: '0': write 1 or more"),
        (["runs", "list", "--limit", "-1"], "argument --limit: '-1': write 1 or more"),
        (["artifacts", "list", "--limit", "all"], "argument --limit: 'all': write 1 or more"),
    ],
)
def test_refuses_wrong_usage(cli: CommandLine, arguments: list[str], names: str) -> None:
    """Arguments that a command does not take end with exit code 2 and the usage."""
    ended = cli(*arguments)
    assert (2, "") == (ended.code, ended.out)
    assert "usage: chapkit-flows" in ended.err
    assert names in ended.err


@pytest.mark.parametrize(
    ("reference", "names", "remedy"),
    [
        ("nothing.py:mean", "no file nothing.py", "path of the model's Python file"),
        (f"{MODELS}:median", "no model named 'median'", f"{MODELS}:mean"),
        (f"{MODELS}", "5 models, not one", f"{MODELS}:mean"),
        ("uninstalled", "No model 'uninstalled'", "path/to/file.py:name"),
        ("{folder}/broken.py:model", "ModuleNotFoundError: No module named 'no_such_module'", "broken.py"),
        ("{folder}/empty.py:model", "no model named 'model'", "write name = Model"),
        ("{folder}/contrary.py:model", "the horizon bounds 3 to 2 hold no horizon", "min_prediction_periods"),
    ],
)
def test_refuses_model(cli: CommandLine, tmp_path: Path, reference: str, names: str, remedy: str) -> None:
    """A model that is not there, or cannot be made, is refused by name."""
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "contrary.py").write_text(
        "from chapkit_flows import FunctionalModelRunner, Model, ModelConfig\n"
        "model = Model(name='m', config=ModelConfig, runner=FunctionalModelRunner(print, print),\n"
        "              min_prediction_periods=3, max_prediction_periods=2)\n"
    )
    ended = cli("train", reference.format(folder=tmp_path), "--data", "data.csv")
    assert (2, "") == (ended.code, ended.out)
    assert names in ended.err
    assert remedy in ended.err
    assert "Traceback" not in ended.err


def test_trains_and_predicts(server: str, home: Path, cli: CommandLine, tmp_path: Path) -> None:
    """For people, train and predict show their steps, the ids and what to do next."""
    tables = write_tables(tmp_path)
    trained = cli("train", model("mean"), "--data", tables["training"], "--set", "samples=2", "--geo", tables["geo"])
    assert 0 == trained.code, trained
    assert "· Loaded data: 24 rows, 2 places, 2015-01 to 2015-12" in trained.err
    training = list_runs(open_resources().database)[0]
    assert f"chapkit-flows predict {training.output('model').id} --historic" in trained.out
    assert 2 == training.config.content["samples"]
    out = tmp_path / "forecast.csv"
    files = ("--historic", tables["historic"], "--future", tables["future"])
    predicted = cli("predict", training.output("model").id, *files, "--out", out)
    assert 0 == predicted.code, predicted
    prediction = list_runs(open_resources().database)[0].output("prediction")
    assert f"chapkit-flows lineage {prediction.id} --up" in predicted.out
    assert str(out) in predicted.out
    assert ["time_period", "location", "sample_0", "sample_1"] == list(pd.read_csv(out).columns)
    assert (6, 4) == pd.read_csv(out).shape


def test_gives_results_as_json(server: str, home: Path, cli: CommandLine, tmp_path: Path) -> None:
    """With --json, train and predict print one object with the ids of what they made."""
    tables = write_tables(tmp_path)
    trained = cli("train", model("mean"), "--data", tables["training"], "--json").json
    assert set(trained) >= RESULT
    assert "completed" == trained["status"]
    run = get_run(open_resources().database, trained["run_id"])
    assert (trained["flow_run_id"], trained["artifact_id"]) == (run.flow_run_id, run.output("model").id)
    files = ("--historic", tables["historic"], "--future", tables["future"])
    out = tmp_path / "forecast.parquet"
    predicted = cli("predict", trained["artifact_id"], *files, "--out", out, "--json").json
    assert set(predicted) >= {*RESULT, "out"}
    assert (str(out), "completed") == (predicted["out"], predicted["status"])
    assert 6 == len(pd.read_parquet(out))


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("forecast.xlsx", "write a name that ends in .csv or .parquet"),
        ("nowhere/forecast.csv", "there is no folder"),
        ("folder.csv", "is a folder"),
    ],
)
def test_refuses_unwritable_out_before_run(
    story: Story, cli: CommandLine, tmp_path: Path, out: str, names: str
) -> None:
    """A file that could not be written after the run is refused before it."""
    (tmp_path / "folder.csv").mkdir()
    runs = len(list_runs(open_resources().database))
    files = ("--historic", story.tables["historic"], "--future", story.tables["future"])
    ended = cli("predict", story.trained.artifact_id, *files, "--out", tmp_path / out)
    assert 2 == ended.code
    assert names in ended.err
    assert runs == len(list_runs(open_resources().database))


def test_validates(story: Story, cli: CommandLine) -> None:
    """Validation says whether a run would start, in words or as JSON, and exits accordingly."""
    good = ("validate", model("mean"), "--data", story.tables["training"])
    assert (0, "Valid: a run with these inputs would start.\n") == ((said := cli(*good)).code, said.out)
    assert {"valid": True, "diagnostics": []} == cli(*good, "--json").json
    bad = cli("validate", model("mean"), "--data", story.tables["future"])
    assert 2 == bad.code
    assert "error missing_column (data.disease_cases)\n" in bad.out
    assert bad.out.endswith("Not valid.\n")
    assert bad.err == ""


def test_validates_prediction(story: Story, cli: CommandLine) -> None:
    """With --artifact the inputs of a prediction are checked."""
    files = ("--historic", story.tables["historic"], "--future", story.tables["historic"])
    ended = cli("validate", model("shell"), "--artifact", story.trained.artifact_id, *files, "--json")
    expected = {("warning", "future_not_adjacent"), ("warning", "prediction_periods_mismatch")}
    found = {(one["severity"], one["code"]) for one in ended.json["diagnostics"]}
    assert (0, expected) == (ended.code, found)


def test_validation_needs_inputs(server: str, home: Path, cli: CommandLine) -> None:
    """Without data or a trained model there is nothing to check."""
    ended = cli("validate", model("mean"))
    assert 2 == ended.code
    assert "Pass --data" in ended.err
