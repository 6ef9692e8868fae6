"""A shell model through its flows: what the commands get from a file, and what the run shows of them."""

from __future__ import annotations

import shlex
import sys
import textwrap
import time
from pathlib import Path

import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

from chapkit_flows import Model, ModelConfig, Project, ShellModelRunner, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.artifacts.trees import get_tree
from chapkit_flows.errors import ScriptFailed
from chapkit_flows.lineage.query import get_artifact, list_artifacts, list_runs

DATA = """\
time_period,location,disease_cases,code,flood,remark
202001,001,1,007,yes,NA
202001,NA,2,010,no,
202002,001,3,007,no,"a, b"
202002,NA,,010,yes,TRUE
"""
TRAIN = """
    import csv, sys
    rows = list(csv.DictReader(open(sys.argv[1], newline="", encoding="utf-8")))
    print("trained on", len(rows), "rows")
    print("no rain gauge", file=sys.stderr)
"""
PREDICT = """
    import csv, sys
    future = list(csv.DictReader(open(sys.argv[1], newline="", encoding="utf-8")))
    with open(sys.argv[2], "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["time_period", "location", "sample_0", "sample_1"])
        writer.writerows([row["time_period"], row["location"], 1, 2.5] for row in future)
"""
PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(textwrap.dedent(TRAIN))
    (folder / "predict.py").write_text(textwrap.dedent(PREDICT))
    (folder / ".env").write_text("TOKEN=s3cret")
    return folder


@pytest.fixture
def model(folder: Path) -> Model:
    runner = ShellModelRunner(
        f"{PYTHON} train.py {{data_file}}",
        f"{PYTHON} predict.py {{future_file}} {{output_file}}",
        project=Project(folder=folder),
    )
    return Model(name="shell-flow", config=ModelConfig, runner=runner)


def logged(flow_run_id: str, wanted: set[str]) -> dict[str, str]:
    """The level of each line that the server holds of a run, by text, once the wanted ones have come."""
    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            levels = {log.message: "INFO" if log.level == 20 else "other" for log in client.read_logs(chosen)}
            if wanted <= levels.keys() or time.monotonic() > deadline:
                return levels
            time.sleep(0.1)  # logs are sent in the background: the server has them a little later


def test_texts_and_log_lines_go_through_the_flows(server: str, home: Path, tmp_path: Path, model: Model) -> None:
    """Codes, a single NA and yes/no reach the script as they are in the file; its lines reach the Prefect run."""
    (tmp_path / "data.csv").write_text(DATA)
    (tmp_path / "future.csv").write_text("time_period,location\n2020-03,001\n2020-03,NA\n")

    trained = model.train(ModelConfig(), str(tmp_path / "data.csv"))
    predicted = model.predict(trained.artifact_id, str(tmp_path / "data.csv"), str(tmp_path / "future.csv"))

    resources = open_resources()
    artifact = get_artifact(resources.database, trained.artifact_id)
    restored = tmp_path / "restored"
    get_tree(resources.store, artifact.digest, restored)
    assert not (restored / ".env").exists()
    seen = pd.read_csv(restored / "data.csv", dtype=str, keep_default_na=False)
    given = pd.read_csv(tmp_path / "data.csv", dtype=str, keep_default_na=False)
    texts = ["location", "code", "flood", "remark"]
    assert given[texts].to_dict("list") == seen[texts].to_dict("list")
    assert ["2020-01", "2020-01", "2020-02", "2020-02"] == seen["time_period"].tolist()
    assert ["1.0", "2.0", "3.0", ""] == seen["disease_cases"].tolist()
    frame = load(resources.store, get_artifact(resources.database, predicted.artifact_id))
    expected = {"time_period": ["2020-03"] * 2, "location": ["001", "NA"], "sample_0": [1.0] * 2, "sample_1": [2.5] * 2}
    assert expected == frame.to_dict("list")
    assert ("trained on 4 rows", "no rain gauge") == (artifact.metadata["stdout"], artifact.metadata["stderr"])

    levels = logged(trained.flow_run_id, {"trained on 4 rows", "no rain gauge"})
    assert ("INFO", "other") == (levels.get("trained on 4 rows"), levels.get("no rain gauge"))


def test_failed_command_leaves_a_failed_artifact(
    server: str, home: Path, tmp_path: Path, folder: Path, model: Model
) -> None:
    """A run whose command fails ends as failed, with the end of stderr and an artifact of all that it left."""
    (folder / "train.py").write_text("open('half.txt', 'w').write('half'); raise SystemExit('no convergence')")
    (tmp_path / "data.csv").write_text(DATA)

    with pytest.raises(ScriptFailed, match=r"exited with 1(.|\n)*no convergence(.|\n)*artifacts download"):
        model.train(ModelConfig(), str(tmp_path / "data.csv"))

    resources = open_resources()
    (artifact,) = list_artifacts(resources.database, kind="training_workspace")
    assert ("failed", 1, "no convergence") == (
        artifact.status,
        artifact.metadata["exit_code"],
        artifact.metadata["stderr"],
    )
    left = tmp_path / "left"
    get_tree(resources.store, artifact.digest, left)
    assert ("half", "no convergence\n") == ((left / "half.txt").read_text(), (left / ".run/train.stderr").read_text())
    (run,) = list_runs(resources.database)
    assert "failed" == run.status
