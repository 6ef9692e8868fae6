"""The commands that look things up: runs, artifacts, lineage."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import CommandLine, Story

from chapkit_flows import open_resources
from chapkit_flows.lineage.query import get_artifact, list_artifacts
from chapkit_flows.testing.facts import record_reading

ABSENT = "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"


def test_lists_runs(story: Story, cli: CommandLine) -> None:
    """Runs are listed newest first, as a table or as JSON."""
    listed = cli("runs", "list")
    lines = listed.out.splitlines()
    assert ["id", "flow", "model", "status", "started", "took"] == lines[0].split()
    assert [story.predicted.run_id, story.trained.run_id] == [line.split()[0] for line in lines[1:3]]
    runs = cli("runs", "list", "--json").json["runs"]
    assert [story.predicted.run_id, story.trained.run_id] == [run["id"] for run in runs]


@pytest.mark.parametrize(
    ("options", "flows"),
    [
        (["--flow", "train"], ["train"]),
        (["--model", "shell"], ["predict", "train"]),
        (["--model", "other"], []),
        (["--status", "failed"], []),
        (["--limit", "1"], ["predict"]),
        (["--before", "{predict}"], ["train"]),
    ],
)
def test_filters_runs(story: Story, cli: CommandLine, options: list[str], flows: list[str]) -> None:
    """Runs can be chosen by flow, model and status, and paged through."""
    given = [option.format(predict=story.predicted.run_id) for option in options]
    assert flows == [run["flow"] for run in cli("runs", "list", *given, "--json").json["runs"]]


def test_tells_how_to_go_on(story: Story, cli: CommandLine) -> None:
    """A full page names the option for the next one; an empty list says so."""
    assert f"More: --before {story.predicted.run_id}" in cli("runs", "list", "--limit", "1").out
    assert "More" not in cli("runs", "list", "--limit", "2").out
    assert "No runs.\n" == cli("runs", "list", "--status", "crashed").out
    assert "No more runs.\n" == cli("runs", "list", "--before", story.trained.run_id).out


@pytest.mark.parametrize("what", ["runs", "artifacts"])
def test_names_known_models(story: Story, cli: CommandLine, what: str) -> None:
    """A search for a model that has never run names those that have."""
    known = "No run of a model 'other' is known. Models that have run lately: shell.\n"
    assert f"No {what}.\n{known}" == cli(what, "list", "--model", "other").out


@pytest.mark.parametrize("by", ["run_id", "flow_run_id"])
def test_shows_run(story: Story, cli: CommandLine, by: str) -> None:
    """A run is shown with its config, inputs and outputs, by its own id or that of its Prefect run."""
    shown = cli("runs", "show", getattr(story.trained, by))
    for fact in (story.trained.run_id, "completed", "told", story.dataset, story.trained.artifact_id, "training.csv"):
        assert fact in shown.out
    run = cli("runs", "show", getattr(story.trained, by), "--json").json
    assert (story.trained.run_id, "completed") == (run["id"], run["status"])
    assert [story.trained.artifact_id] == [edge["artifact"]["id"] for edge in run["outputs"]]


def test_names_data_as_the_run_did(story: Story, cli: CommandLine) -> None:
    """Equal bytes are one dataset; each run shows it under the name by which that run read it."""
    lines = cli("runs", "show", story.predicted.run_id).out.splitlines()
    (historic,) = [line for line in lines if line.startswith("historic") and story.dataset in line]
    assert "historic.csv · 24 rows" in historic


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--kind", "prediction"], {"prediction"}),
        (["--model", "other"], set()),
        (
            [],
            {"dataset", "training_workspace", "prediction", "prediction_workspace", "plot"},
        ),
    ],
)
def test_lists_artifacts(story: Story, cli: CommandLine, options: list[str], kinds: set[str]) -> None:
    """Artifacts are listed by kind and model, as a table or as JSON."""
    found = cli("artifacts", "list", *options, "--json").json["artifacts"]
    assert kinds == {artifact["kind"] for artifact in found}
    table = cli("artifacts", "list", *options).out
    assert all(artifact["id"] in table for artifact in found)
    assert kinds or table.startswith("No artifacts.\n")
    assert all(re.search(rf"{artifact['id']} .* \d\d:\d\d:\d\d +\S", table) for artifact in found)


def test_finds_artifact_by_digest(story: Story, cli: CommandLine) -> None:
    """The digest that sha256sum prints finds the dataset."""
    digest = get_artifact(open_resources().database, story.dataset).digest
    for text in (digest, digest.removeprefix("sha256:")):
        found = cli("artifacts", "list", "--digest", text, "--json").json["artifacts"]
        assert [story.dataset] == [artifact["id"] for artifact in found]


def test_shows_artifact(story: Story, cli: CommandLine) -> None:
    """An artifact is shown with its facts and the run that made it."""
    shown = cli("artifacts", "show", story.trained.artifact_id)
    for fact in (story.trained.artifact_id, "training_workspace", story.trained.run_id, "exit_code"):
        assert fact in shown.out
    artifact = cli("artifacts", "show", story.trained.artifact_id, "--json").json
    assert (story.trained.artifact_id, story.trained.run_id) == (artifact["id"], artifact["run_id"])
    assert cli("artifacts", "show", story.dataset, "--json").json["run_id"] is None


def test_downloads_file(story: Story, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset comes back byte for byte, by default under its own name."""
    monkeypatch.chdir(tmp_path)
    ended = cli("artifacts", "download", story.dataset)
    assert (0, "Wrote training.csv\n") == (ended.code, ended.out)
    assert story.tables["training"].read_bytes() == (tmp_path / "training.csv").read_bytes()


@pytest.mark.parametrize("name", ["forecast.csv", "forecast.parquet"])
def test_downloads_prediction(story: Story, cli: CommandLine, tmp_path: Path, name: str) -> None:
    """A prediction is written as CSV or Parquet, by the ending."""
    out = tmp_path / name
    ended = cli("artifacts", "download", story.predicted.artifact_id, "--out", out, "--json")
    assert {"artifact_id": story.predicted.artifact_id, "path": str(out)} == ended.json
    frame = pd.read_csv(out) if name.endswith("csv") else pd.read_parquet(out)
    assert ["time_period", "location", "sample_0"] == list(frame.columns)
    assert 6 == len(frame)


FRAMED = """
import pandas as pd
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class FramedEdgeConfig(ModelConfig):
    tuning: dict = {"rate": 0.5, "steps": [1, 2]}

def on_train(config, data, geo=None):
    return data.groupby("location")[["disease_cases"]].mean()

framed = Model(name="framed", config=FramedEdgeConfig, runner=FunctionalModelRunner(on_train, on_train))
"""


def test_table_as_model_keeps_its_index(
    story: Story, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained model that is a frame comes back as the Parquet it is, and never as CSV."""
    (tmp_path / "framed.py").write_text(FRAMED)
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    trained = cli("train", "framed.py:framed", "--data", story.tables["training"], "--json").json
    assert 0 == cli("artifacts", "download", trained["artifact_id"]).code
    frame = pd.read_parquet(f"{trained['artifact_id']}.parquet")
    assert ("location", 2) == (frame.index.name, len(frame))
    ended = cli("artifacts", "download", trained["artifact_id"], "--out", "model.csv")
    assert (2, False) == (ended.code, Path("model.csv").exists())
    assert "whose index CSV would lose. Choose an --out that ends in .parquet" in ended.err
    shown = cli("runs", "show", trained["run_id"]).out
    assert re.search(r"^  tuning *\n    rate +0\.5 *\n    steps +1, 2 *$", shown, flags=re.MULTILINE)


def test_downloads_folder(story: Story, cli: CommandLine, tmp_path: Path) -> None:
    """A workspace is restored as a folder, or written as one archive with the same files."""
    folder, archive = tmp_path / "left", tmp_path / "left.zip"
    for out in (folder, archive):
        assert 0 == cli("artifacts", "download", story.trained.artifact_id, "--out", out).code
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert {"trained.txt", "config.yml", "data.csv", ".run/train.stderr"} <= set(files)
    with zipfile.ZipFile(archive) as content:
        assert files == {entry.filename: content.read(entry) for entry in content.infolist() if not entry.is_dir()}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["left", "left.zip", "forecast.parquet"])
@pytest.mark.parametrize("watched", ["terminal", "pipe", "json", "small"])
def test_download_shows_how_far_it_is(
    story: Story, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, watched: str
) -> None:
    """A large download draws bars on a terminal and there only; stdout stays as it is."""
    stream = io.StringIO() if watched == "pipe" else Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("chapkit_flows.cli.progress.LARGE", 1 if watched != "small" else 1 << 40)
    result = story.predicted if name == "forecast.parquet" else story.trained
    out = tmp_path / name
    ended = cli("artifacts", "download", result.artifact_id, "--out", out, *(["--json"] if watched == "json" else []))
    size = get_artifact(open_resources().database, result.artifact_id).size
    drawn = stream.getvalue()
    assert (0, True) == (ended.code, out.exists())
    assert ([True, True] if watched == "terminal" else [False, False]) == [word in drawn for word in ("check", "write")]
    assert (f"{size / 1000:.1f}/{size / 1000:.1f} kB" in drawn) is (watched == "terminal")
    if watched != "json":
        assert f"Wrote {out}\n" == ended.out


@pytest.mark.parametrize("kind", ["dataset", "prediction", "training_workspace"])
def test_download_overwrites_nothing(story: Story, cli: CommandLine, tmp_path: Path, kind: str) -> None:
    """A file that is there stays as it is."""
    (artifact,) = list_artifacts(open_resources().database, kind=kind, model="shell", limit=1)
    out = tmp_path / "there.csv"
    out.write_text("mine")
    ended = cli("artifacts", "download", artifact.id, "--out", out)
    assert (2, "mine") == (ended.code, out.read_text())
    assert f"{out} exists already. Remove it" in ended.err


@pytest.mark.parametrize("name", ["left.zip", "left"])
def test_broken_download_leaves_nothing(
    story: Story, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Bytes that the store has lost are named, and no half of a file or folder is left."""
    resources = open_resources()
    artifact = get_artifact(resources.database, story.trained.artifact_id)
    tree = next(Path(resources.store.url).glob(f"objects/sha256/*/{artifact.digest[9:]}"))
    lost = next(file for file in Path(resources.store.url).glob("objects/sha256/*/*") if file.read_bytes() == b"yes")
    assert tree != lost
    kept = lost.rename(tmp_path / "kept")
    try:
        ended = cli("artifacts", "download", artifact.id, "--out", tmp_path / name)
    finally:
        kept.rename(lost)
    assert 2 == ended.code
    assert f"does not hold the object sha256:{lost.parent.name}{lost.name}" in ended.err
    assert [] == list(tmp_path.iterdir())


def test_download_refuses_missing_folder(story: Story, cli: CommandLine, tmp_path: Path) -> None:
    """A folder that is not there is not made."""
    ended = cli("artifacts", "download", story.dataset, "--out", tmp_path / "nowhere/data.csv")
    assert 2 == ended.code
    assert f"There is no folder {tmp_path / 'nowhere'}" in ended.err


def _nodes(graph: dict[str, Any], kind: str) -> set[str]:
    return {node["id"] for node in graph["nodes"] if node["type"] == kind}


def test_follows_lineage(story: Story, cli: CommandLine) -> None:
    """Upward from a prediction is what made it, downward from a dataset what was made from it."""
    up = cli("lineage", story.predicted.artifact_id, "--up", "--json").json
    assert {"nodes", "edges"} <= set(up)
    assert {story.predicted.run_id, story.trained.run_id} == _nodes(up, "run")
    assert {story.dataset, story.trained.artifact_id} <= _nodes(up, "artifact")
    down = cli("lineage", story.dataset, "--down", "--json").json
    assert {story.predicted.run_id, story.trained.run_id} == _nodes(down, "run")
    assert story.predicted.artifact_id in _nodes(down, "artifact")
    ids = {node["id"] for node in down["nodes"]}
    assert all({edge["source"], edge["target"]} <= ids for edge in down["edges"])


def test_lineage_both_ways_and_depth(story: Story, cli: CommandLine) -> None:
    """Without a direction both are followed; a depth counts runs."""
    both = cli("lineage", story.trained.artifact_id, "--json").json
    assert {story.predicted.run_id, story.trained.run_id} == _nodes(both, "run")
    near = cli("lineage", story.predicted.artifact_id, "--up", "--depth", "1", "--json").json
    assert {story.predicted.run_id} == _nodes(near, "run")


def test_draws_lineage(story: Story, cli: CommandLine) -> None:
    """For people the lineage is a tree with whole ids and digests."""
    drawn = cli("lineage", story.predicted.artifact_id, "--up").out
    digest = get_artifact(open_resources().database, story.dataset).digest
    for text in ("made from", story.predicted.run_id, story.trained.run_id, "training.csv", digest):
        assert text in drawn
    assert "used for" in cli("lineage", story.dataset, "--down").out


def test_draws_no_empty_lineage(story: Story, cli: CommandLine) -> None:
    """What has nothing on one side has one tree only; what has nothing on the side asked for is shown alone."""
    for start, drawn, left_out in (
        (story.predicted.artifact_id, "made from", "used for"),
        (story.dataset, "used for", "made from"),
    ):
        told = cli("lineage", start).out
        assert (True, False) == (drawn in told, left_out in told)
    assert 1 == len(cli("lineage", story.dataset, "--up").out.splitlines())


@pytest.mark.parametrize(
    ("command", "names", "remedy"),
    [
        (["runs", "show", ABSENT], f"No run has the id '{ABSENT}'", "runs list"),
        (["runs", "show", "rain"], "No run has the id 'rain'", "runs list"),
        (["runs", "list", "--before", "rain"], "'rain' is not an id", "26 letters and digits"),
        (["artifacts", "show", ABSENT], f"No artifact has the id {ABSENT}", "artifacts list"),
        (["artifacts", "show", "rain"], "'rain' is not an id", "artifacts list"),
        (["artifacts", "download", ABSENT], f"No artifact has the id {ABSENT}", "artifacts list"),
        (["lineage", ABSENT], ABSENT, "list"),
        (["lineage", "rain"], "'rain'", "list"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_refuses_unknown_id(
    story: Story, cli: CommandLine, command: list[str], names: str, remedy: str, as_json: bool
) -> None:
    """An id of nothing ends with exit code 2 and the remedy."""
    ended = cli(*command, *(["--json"] if as_json else []))
    assert 2 == ended.code
    said = ended.json["error"]["message"] if as_json else ended.err
    assert names in said
    assert remedy in said
    assert "Traceback" not in ended.err


def test_lineage_of_a_file(story: Story, cli: CommandLine, tmp_path: Path) -> None:
    """A file, an equal copy of it, its digest, and an id all name the same dataset."""
    digest = get_artifact(open_resources().database, story.dataset).digest
    copy = tmp_path / "copy.csv"
    copy.write_bytes(story.tables["training"].read_bytes())
    for named in (story.tables["training"], copy, digest, digest.removeprefix("sha256:")):
        assert story.dataset == cli("lineage", named, "--down", "--json").json["nodes"][0]["id"]
    copy.write_bytes(b"other")
    refused = cli("lineage", copy)
    assert (2, True) == (refused.code, "No run has read or made the content of" in refused.err)


def test_lineage_page_by_page(story: Story, cli: CommandLine) -> None:
    """Where a graph was cut the next command is printed, and does what it says."""
    cut = cli("lineage", story.dataset, "--down", "--limit", "2")
    assert "The graph is larger than --limit." in cut.out
    following = [line for line in cut.out.splitlines() if line.startswith("More: ")]
    arguments = following[0].removeprefix("More: chapkit-flows ").split()
    assert story.trained.run_id in cli(*arguments).out + cut.out
    (cursor,) = [
        one for one in cli("lineage", story.dataset, "--down", "--limit", "2", "--json").json["more"] if one["before"]
    ]
    assert (story.dataset, "down") == (cursor["node"], cursor["heading"])
    both = cli("lineage", story.dataset, "--before", cursor["before"])
    assert (2, True) == (both.code, "Add --up or --down" in both.err)


def test_lineage_by_level(story: Story, cli: CommandLine) -> None:
    """Levels show predictions below the model that made them, and what they left below the predictions."""
    drawn = cli("lineage", story.trained.artifact_id, "--levels").out.splitlines()
    assert ["level 0 training workspace", "level 1 prediction", "level 2 prediction workspace"] == [
        re.sub(r"\W*(level \d [a-z ]+) 01.*", r"\1", line) for line in drawn
    ]
    levels = cli("lineage", story.trained.artifact_id, "--levels", "--json").json["levels"]
    assert [None, levels[0]["id"], levels[1]["id"]] == [place["parent"] for place in levels]


def test_stale_data_is_marked(home: Path, cli: CommandLine) -> None:
    """A dataset with a newer version, and what was made from it, says which URI brought which one."""
    database = open_resources().database
    old = record_reading(database, "s3://bucket/laos.csv", "old")
    dataset, model = old.inputs[0].artifact.id, old.output("model").id
    assert "Stale" not in cli("artifacts", "show", model).out
    newer = record_reading(database, "s3://bucket/laos.csv", "new").inputs[0].artifact.id
    said = f"s3://bucket/laos.csv has a newer version {newer}"
    assert said in cli("artifacts", "show", dataset).out
    assert f"made from {dataset}: {said}" in cli("artifacts", "show", model).out
    assert [(dataset, newer)] == [
        (reason["dataset"], reason["newer"]) for reason in cli("artifacts", "show", model, "--json").json["stale"]
    ]
    assert said in cli("lineage", model, "--up").out
    by_uri = cli("lineage", "s3://bucket/laos.csv", "--down")
    assert (newer in by_uri.out, dataset in by_uri.err) == (True, True)
