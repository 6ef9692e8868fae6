"""Facts to try a lineage database with: runs, artifacts, and what they are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import event

from chapkit_flows.lineage import record
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Edge, Outcome, Reading, RunFact
from chapkit_flows.lineage.readings import uri_digest
from chapkit_flows.refs import ArtifactRef, CodeVersion, ConfigRef, Kind, RunRef, canonical_json, digest_of, new_id


def make_artifact(kind: Kind, content: str, **fields: Any) -> ArtifactRef:
    """An artifact with an id of its own and the digest of its content."""
    encoded = content.encode()
    values: dict[str, Any] = {
        "id": new_id(),
        "digest": digest_of(encoded),
        "size": len(encoded),
        "media_type": "text/csv",
    }
    return ArtifactRef(kind=kind, **(values | fields))


def make_run(flow: str = "train", model: str = "rain", **fields: Any) -> RunRef:
    """A run with an id of its own."""
    return RunRef(flow=flow, model=model, **({"id": new_id()} | fields))


def make_config(**content: Any) -> ConfigRef:
    """A config version."""
    digest = digest_of(canonical_json(content))
    return ConfigRef(digest=digest, block_type="rain-config", name="weekly", content=content)


def make_code(commit: str = "5f3c2ab") -> CodeVersion:
    """A code version of a clean repository."""
    return CodeVersion(
        digest=digest_of(commit.encode()),
        git_commit=commit,
        dirty=False,
        patch_digest=None,
        source_digest=digest_of(b"def on_train(): ..."),
        python="3.11.7",
        packages={"numpy": "2.3.0", "pandas": "3.0.0"},
    )


def make_reading(uri: str, edge: Edge, **fields: Any) -> Reading:
    """The reading of a URI that brought the dataset of an edge; what it is recorded with knows the run."""
    values = {
        "uri_digest": uri_digest(uri),
        "uri": uri,
        "role": edge.role,
        "artifact_id": edge.artifact.id,
        "run_id": "",
    }
    return Reading(**(values | fields))


def record_reading(database: Database, uri: str, content: str, **fields: Any) -> RunFact:
    """A training that read a content from a URI."""
    outcome = make_training(data=content, workspace=new_id())
    reading = make_reading(uri, outcome.inputs[0], **fields)
    return record_run(database, replace(outcome, readings=(reading,)))


def make_training(data: str = "table", workspace: str = "model") -> Outcome:
    """A training that read a dataset and made a workspace."""
    return Outcome(
        status="completed",
        inputs=(Edge(role="data", artifact=make_artifact("dataset", data, metadata={"name": "laos.csv"})),),
        outputs=(Edge(role="model", artifact=make_artifact("training_workspace", workspace, level=0)),),
        config=make_config(n_lags=3),
        code=make_code(),
        metrics={"crps": 12.5, "rmse": 3.0},
    )


def make_prediction(model: ArtifactRef, forecast: str = "forecast") -> Outcome:
    """A prediction with a model on a dataset."""
    return Outcome(
        status="completed",
        inputs=(
            Edge(role="model", artifact=model),
            Edge(role="historic", artifact=make_artifact("dataset", "table")),
        ),
        outputs=(Edge(role="prediction", artifact=make_artifact("prediction", forecast, level=1)),),
        config=make_config(n_lags=3),
        code=make_code(),
    )


def record_run(database: Database, outcome: Outcome, **fields: Any) -> RunFact:
    """Start a run and finish it."""
    return record.finish(database, record.start(database, make_run(**fields)).id, outcome)


def record_chain(database: Database) -> tuple[RunFact, RunFact]:
    """A training and a prediction with its model."""
    training = record_run(database, make_training())
    model = training.outputs[0].artifact
    return training, record_run(database, make_prediction(model), flow="predict")


def count_statements(database: Database, work: Callable[[], object]) -> int:
    """How many statements `work` sends to the database."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return len(sent)
