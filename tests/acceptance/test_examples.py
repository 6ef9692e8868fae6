"""The examples, run as their README tells it by someone who has nothing but the repository."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from sites import ROOT, run_program, script

from chapkit_flows.cli.main import main

PERIODS_AHEAD, PLACES = 3, 5


@pytest.fixture
def newcomer(tmp_path: Path) -> dict[str, str]:
    """The environment of someone who has never run Prefect: an empty home directory and no settings."""
    (tmp_path / "nobody").mkdir()
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTEST_", "COV_"))}
    return own | {"HOME": str(tmp_path / "nobody")}


@pytest.mark.parametrize(("example", "samples"), [("dengue_forecast", 200), ("shell_model", 100)])
def test_story(checkout: Path, newcomer: dict[str, str], example: str, samples: int) -> None:
    """The story makes data, trains, predicts and shows the lineage, without a server and within its own folder."""
    story = [script("python"), "examples/story.py", example, f"demo-{example}"]
    told = run_program(story, folder=checkout, environment=newcomer)

    with (checkout / f"demo-{example}" / "forecast.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert ["time_period", "location", *(f"sample_{number}" for number in range(samples))] == header
    assert PERIODS_AHEAD * PLACES == len({tuple(row[:2]) for row in rows}) == len(rows)
    assert "made from" in told
    assert not re.search(r"Traceback|Warning|Error", told), told
    assert [] == list(Path(newcomer["HOME"]).iterdir())

    further = re.findall(r"^  (.+)$", told.partition("to look further:")[2], flags=re.MULTILINE)
    variable = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME"
    assert [f"export {variable}=demo-{example}/home", "chapkit-flows runs list"] == further[:2]
    look = [script("chapkit-flows"), "runs", "list"]
    listed = run_program(look, folder=checkout, environment=newcomer | {variable: f"demo-{example}/home"})
    assert ["predict", "train"] == re.findall(r"^\S+ +(predict|train) ", listed, flags=re.MULTILINE)


def test_example_data_is_what_the_command_makes(tmp_path: Path) -> None:
    """The data in the repository is, byte for byte, what the README's command makes; it is small."""
    kept = ROOT / "examples/dengue_forecast/data"
    model = ROOT / "examples/dengue_forecast/model.py"
    assert 0 == main(["sample-data", f"{model}:dengue", "--out", str(tmp_path / "data")])
    made = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == made
    assert {"training.csv", "historic.csv", "future.csv", "geo.json"} == set(made)
    assert sum(map(len, made.values())) < 40_000


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """The examples as links in a folder of their own: a copy of a loaded model would define its config type twice."""
    for example in ("dengue_forecast", "shell_model"):
        folder = tmp_path / "examples" / example
        folder.mkdir(parents=True)
        for item in (ROOT / "examples" / example).iterdir():
            (folder / item.name).symlink_to(item)
    return tmp_path


@pytest.mark.parametrize("example", ["dengue_forecast", "shell_model"])
def test_readme_commands(
    server: str,
    home: Path,
    linked: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    example: str,
) -> None:
    """The README of an example has at most 40 lines, and its commands work one after the other as they stand."""
    text = (linked / "examples" / example / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    monkeypatch.chdir(linked)
    files = sorted((linked / "examples").rglob("*"))
    made = ""
    names = []
    for line in re.findall(r"^    (.+)$", text, flags=re.MULTILINE):
        program, *arguments = shlex.split(line)
        if program == "cd":
            monkeypatch.chdir(arguments[0])
            continue
        if program == "mkdir":
            Path(arguments[-1]).mkdir()
            continue
        assert "chapkit-flows" == program
        names.append(arguments[0])
        capsys.readouterr()
        assert 0 == main([*(made if argument == "ID" else argument for argument in arguments), "--json"])
        made = json.loads(capsys.readouterr().out).get("artifact_id", made)
    assert ["train", "predict", "lineage"] == names[-3:]
    assert files == sorted((linked / "examples").rglob("*"))
    assert (linked / "demo/forecast.csv").is_file()
