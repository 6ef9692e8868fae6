"""The contract of a lineage database. Subclass `LineageContract` and give it a `database` fixture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from chapkit_flows.errors import ArtifactNotFound, ConfigNotFound, InvalidId, LineageError, RunNotFound
from chapkit_flows.lineage import query, record, walks
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Edge, GraphEdge, Outcome, RunFact, run_from_dict
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.migrations import VERSION_TABLE
from chapkit_flows.lineage.migrations.upgrade import downgrade, upgrade
from chapkit_flows.lineage.tables import Table
from chapkit_flows.refs import digest_of, new_id
from chapkit_flows.testing.configs import ConfigContract
from chapkit_flows.testing.facts import (
    count_statements,
    make_artifact,
    make_config,
    make_prediction,
    make_run,
    make_training,
    record_chain,
    record_run,
)
from chapkit_flows.testing.graphs import GraphPageContract, StalenessContract
from chapkit_flows.testing.readings import ReadingContract
from chapkit_flows.testing.searches import AnnotationContract, SearchContract


class RunContract:
    """How runs are recorded and read."""

    def test_started_run_is_running(self, database: Database) -> None:
        """A run that has begun can be read with all that is known of it."""
        started_at = datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=7)))
        run = make_run(
            entrypoint="models/rain.py:rain",
            flow_run_id="2b6f0cc9-04f5-4bb5-8d31-b57dfbf4ff0e",
            flow_run_name="brave-mole",
            started_at=started_at,
            parameters={"data": "s3://b/ລາວ.csv", "geo": None, "horizon": 3},
        )
        fact = record.start(database, run)
        assert fact == query.get_run(database, run.id)
        assert fact == query.get_run(database, "2B6F0CC9-04f5-4bb5-8d31-b57dfbf4ff0e")
        assert (run.id, "running", run.parameters) == (fact.id, fact.status, fact.parameters)
        assert (started_at, UTC) == (fact.started_at, fact.started_at.tzinfo)
        assert fact.finished_at is None

    def test_finished_run_keeps_its_outcome(self, database: Database) -> None:
        """A finished run is read back with edges, config, code and metrics."""
        outcome = make_training()
        fact = record_run(database, outcome)
        assert fact == query.get_run(database, fact.id)
        assert outcome.inputs == fact.inputs
        assert outcome.outputs == fact.outputs
        assert (outcome.config, outcome.code) == (fact.config, fact.code)
        assert outcome.metrics == fact.metrics
        assert fact.finished_at is not None
        assert fact.finished_at >= fact.started_at

    def test_one_config_under_two_names(self, database: Database) -> None:
        """Runs whose configs have equal contents share the version and keep the name that each knew it by."""
        outcome = make_training()
        config = make_config(n_lags=3)
        names = ["weekly", "copy of weekly", None]
        facts = [record_run(database, replace(outcome, config=replace(config, name=name))) for name in names]
        assert names == [fact.config and fact.config.name for fact in facts]
        assert config == query.get_config(database, config.digest)

    def test_run_as_json(self, database: Database) -> None:
        """A fact becomes JSON values, with its outputs found by role."""
        fact = record_run(database, replace(make_training(), metrics={"crps": math.nan}))
        shown = json.loads(json.dumps(fact.to_dict(), allow_nan=False))
        assert (fact.id, fact.started_at.isoformat()) == (shown["id"], shown["started_at"])
        assert fact.output("model").digest == shown["outputs"][0]["artifact"]["digest"]
        assert shown["metrics"] == {"crps": "NaN"}
        assert fact.find_output("prediction") is None

    def test_metrics_that_are_not_finite(self, database: Database) -> None:
        """NaN and infinite metrics come back as they were."""
        metrics = {"nan": math.nan, "up": math.inf, "down": -math.inf, "tiny": 5e-324, "Nan": 1.0}
        fact = record_run(database, replace(make_training(), metrics=metrics))
        assert math.isnan(fact.metrics["nan"])
        assert {"up": math.inf, "down": -math.inf, "tiny": 5e-324, "Nan": 1.0} == {
            name: value for name, value in fact.metrics.items() if name != "nan"
        }

    def test_metadata_that_is_not_finite(self, database: Database) -> None:
        """JSON facts with NaN, which no standard JSON holds, are kept with a text in its place."""
        metadata = {"mean": math.nan, "codes": ["001", {"max": math.inf}], "big": 2**53}
        artifact = make_artifact("prediction", "p", metadata=metadata)
        outputs = (Edge(role="prediction", artifact=artifact),)
        record_run(database, Outcome(status="completed", outputs=outputs))
        expected = {"mean": "NaN", "codes": ["001", {"max": "Infinity"}], "big": 2**53}
        assert expected == query.get_artifact(database, artifact.id).metadata

    def test_error_text_of_a_script(self, database: Database) -> None:
        """The output of a failed script is kept even with characters that databases refuse."""
        fact = record_run(database, Outcome(status="failed", error="a\x00b \udcff 🌧 " + "x" * 100_000))
        assert fact.error == "a\ufffdb ? 🌧 " + "x" * 100_000

    def test_too_long_text_is_refused(self, database: Database) -> None:
        """A name longer than its column is refused alike by every database."""
        with pytest.raises(LineageError, match="300 characters, at most 255 fit"):
            record.start(database, make_run(model="m" * 300))

    def test_metrics_of_artifacts(self, database: Database) -> None:
        """Numbers about artifacts that a run read or wrote are kept apart from its own, and come back as they were."""
        _, prediction = record_chain(database)
        forecast = prediction.output("prediction")
        report = make_artifact("report", "scores")
        measured = {forecast.id: {"crps": 4.5, "nan": math.nan}, report.id: {"crps": math.inf}}
        scored = Outcome(
            status="completed",
            inputs=(Edge(role="prediction", artifact=forecast),),
            outputs=(Edge(role="scores", artifact=report),),
            metrics={"crps": 7.0},
            artifact_metrics=measured,
        )
        run = record_run(database, scored, flow="score")
        assert run.metrics == {"crps": 7.0}
        assert repr(measured) == repr({key: dict(run.artifact_metrics[key]) for key in measured})
        assert repr(run) == repr(query.get_run(database, run.id))
        assert repr(run) == repr(run_from_dict(json.loads(json.dumps(run.to_dict(), allow_nan=False))))
        assert {} == prediction.artifact_metrics == query.get_run(database, prediction.id).artifact_metrics
        again = record.finish(database, record.start(database, make_run(flow="score")).id, replace(scored, metrics={}))
        assert again.metrics == {}
        assert again.artifact_metrics.keys() == measured.keys()

    def test_unknown_run(self, database: Database) -> None:
        """Neither reading nor finishing works for a run that was never started."""
        with pytest.raises(RunNotFound, match="nonsense"):
            query.get_run(database, "nonsense")
        with pytest.raises(RunNotFound, match="chapkit-flows runs list"):
            record.finish(database, new_id(), make_training())
        assert query.list_artifacts(database) == []


class RetryContract:
    """What a retry of a flow adds: nothing."""

    def test_start_again_gives_the_same_run(self, database: Database) -> None:
        """A flow run that starts again continues its run."""
        first = record.start(database, make_run(flow_run_id="f1"))
        record.finish(database, first.id, Outcome(status="failed", error="boom"))
        again = record.start(database, make_run(flow_run_id="f1"))
        assert first == again
        assert len(query.list_runs(database)) == 1

    def test_start_after_completion_gives_the_result(self, database: Database) -> None:
        """A completed flow run that starts again finds its outputs."""
        completed = record_run(database, make_training(), flow_run_id="f1")
        assert completed == record.start(database, make_run(flow_run_id="f1"))

    @pytest.mark.parametrize("status", ["completed", "failed"])
    def test_same_outcome_twice(self, database: Database, status: Any) -> None:
        """Recording an outcome again adds nothing."""
        outcome = replace(make_training(), status=status)
        first = record_run(database, outcome)
        again = record.finish(database, first.id, outcome)
        assert replace(first, finished_at=None) == replace(again, finished_at=None)
        assert len(query.list_artifacts(database)) == 2

    def test_same_bytes_with_new_ids(self, database: Database) -> None:
        """A second attempt that stores the same bytes gets the artifacts of the first."""
        first = record_run(database, replace(make_training(), status="failed"))
        second = record.finish(database, first.id, make_training())
        assert (first.inputs, first.outputs) == (second.inputs, second.outputs)
        assert second.status == "completed"

    def test_failed_then_completed(self, database: Database) -> None:
        """A retry that succeeds keeps what the failed attempt left, with the new error, metrics and outputs."""
        kept = Edge(role="workspace", artifact=make_artifact("training_workspace", "broken", status="failed"))
        failed = Outcome(status="failed", error="boom", outputs=(kept,), metrics={"crps": 99.0, "old": 1.0})
        first = record_run(database, failed)
        outcome = make_training()
        second = record.finish(database, first.id, outcome)
        assert ("completed", None, outcome.metrics) == (second.status, second.error, second.metrics)
        assert (*outcome.outputs, kept) == second.outputs

    def test_completed_run_stays(self, database: Database) -> None:
        """A second process that executes the same flow run cannot undo a completed one."""
        completed = record_run(database, make_training())
        assert completed == record.finish(database, completed.id, Outcome(status="crashed", error="late"))

    def test_dataset_is_recorded_once(self, database: Database) -> None:
        """Runs that read the same bytes share one dataset; the same bytes as another type are another."""
        first, second = record_run(database, make_training()), record_run(database, make_training())
        dataset = first.inputs[0].artifact
        assert dataset == second.inputs[0].artifact
        assert dataset == query.find_dataset(database, dataset.digest, "text/csv")
        assert query.find_dataset(database, dataset.digest, "application/geo+json") is None

    def test_one_dataset_in_two_roles(self, database: Database) -> None:
        """A run may read the same bytes in two roles."""
        inputs = tuple(Edge(role=role, artifact=make_artifact("dataset", "same")) for role in ("future", "historic"))
        fact = record_run(database, Outcome(status="completed", inputs=inputs))
        assert [edge.role for edge in fact.inputs] == ["future", "historic"]
        assert len({edge.artifact.id for edge in fact.inputs}) == 1

    def test_id_of_other_bytes(self, database: Database) -> None:
        """An artifact cannot be recorded under an id that belongs to other bytes, and nothing of the run is."""
        training = record_run(database, make_training())
        forged = replace(training.outputs[0].artifact, digest=digest_of(b"forged"))
        run = record.start(database, make_run())
        with pytest.raises(LineageError, match="Artifacts never change"):
            record.finish(database, run.id, make_prediction(forged))
        assert run == query.get_run(database, run.id)


class QueryContract:
    """How facts are found."""

    def test_lists_are_filtered(self, database: Database) -> None:
        """Runs and artifacts are found by what they are."""
        training, prediction = record_chain(database)
        running = record.start(database, make_run(model="heat"))
        assert [running, prediction, training] == query.list_runs(database)
        assert [prediction] == query.list_runs(database, flow="predict", model="rain")
        assert [running] == query.list_runs(database, status="running")
        assert query.list_runs(database, model="RAIN") == []
        outputs = [prediction.outputs[0].artifact]
        assert outputs == query.list_artifacts(database, kind="prediction", model="rain")
        assert outputs == query.list_artifacts(database, digest=outputs[0].digest)
        assert query.list_artifacts(database, model="heat") == []

    def test_pages_are_stable_under_inserts(self, database: Database) -> None:
        """Walking the pages gives each run once although new ones come in between."""
        expected = [record.start(database, make_run()).id for _ in range(7)][::-1]
        found, before = [], None
        while page := query.list_runs(database, limit=3, before=before):
            found += [run.id for run in page]
            before = found[-1].lower()
            record.start(database, make_run())
        assert expected == found

    def test_pages_of_artifacts(self, database: Database) -> None:
        """Pages of artifacts continue where the last one ended."""
        for number in range(3):
            record_run(database, make_training(workspace=f"model {number}"))
        whole = query.list_artifacts(database, model="rain")
        first = query.list_artifacts(database, model="rain", limit=2)
        assert whole == first + query.list_artifacts(database, model="rain", before=first[-1].id)
        assert len(whole) == 4

    def test_both_sides_of_an_artifact(self, database: Database) -> None:
        """An artifact leads to the run that made it and to those that read it."""
        training, prediction = record_chain(database)
        model, dataset = training.outputs[0].artifact.id, training.inputs[0].artifact.id
        assert training == query.producer(database, model)
        assert query.producer(database, dataset) is None
        assert [prediction] == query.consumers(database, model.lower())
        assert [prediction, training] == query.consumers(database, dataset)
        assert [training] == query.consumers(database, dataset, before=prediction.id)

    @pytest.mark.parametrize("find", [query.get_artifact, query.producer, query.consumers, lineage])
    def test_unknown_artifact(self, database: Database, find: Callable[[Database, str], object]) -> None:
        """A malformed id and an id of nothing are told apart."""
        with pytest.raises(InvalidId, match="'rain'"):
            find(database, "rain")
        with pytest.raises(ArtifactNotFound, match="chapkit-flows artifacts list"):
            find(database, new_id())

    def test_config_version(self, database: Database) -> None:
        """A config version that a run used is found by digest."""
        training = record_run(database, make_training())
        assert training.config is not None
        assert training.config == query.get_config(database, training.config.digest)
        with pytest.raises(ConfigNotFound, match="sha256:0"):
            query.get_config(database, "sha256:0")


class GraphContract:
    """What was made from what."""

    def test_whole_story_of_a_prediction(self, database: Database) -> None:
        """A prediction leads back to model, data, config and code, along the flow of data."""
        training, prediction = record_chain(database)
        dataset, model = training.inputs[0].artifact, training.outputs[0].artifact
        forecast = prediction.outputs[0].artifact
        assert training.config is not None
        assert training.code is not None
        graph = lineage(database, forecast.id)
        assert forecast.id == graph.nodes[0].id
        expected = {
            (dataset.id, training.id, "data"),
            (training.id, model.id, "model"),
            (model.id, prediction.id, "model"),
            (dataset.id, prediction.id, "historic"),
            (prediction.id, forecast.id, "prediction"),
            *((training.config.digest, run.id, "config") for run in (training, prediction)),
            *((training.code.digest, run.id, "code") for run in (training, prediction)),
        }
        assert expected == {(edge.source, edge.target, edge.role) for edge in graph.edges}
        labels = {node.label for node in graph.nodes}
        assert {"dataset laos.csv", "train rain", "predict rain", "weekly", "5f3c2ab"} < labels
        assert len(graph.nodes) == 7

    def test_direction_and_depth(self, database: Database) -> None:
        """The walk goes only where and as far as it is told."""
        training, prediction = record_chain(database)
        model, forecast = training.outputs[0].artifact.id, prediction.outputs[0].artifact.id

        def walk(identity: str, **options: Any) -> set[str]:
            graph = lineage(database, identity, **options)
            return {node.id for node in graph.nodes if node.type in ("run", "artifact")}

        assert {model, prediction.id, forecast} == walk(model, up=False)
        assert {model, training.id, training.inputs[0].artifact.id} == walk(model, down=False)
        assert {training.id, training.inputs[0].artifact.id, model} == walk(training.id, depth=1)
        assert walk(model) == walk(training.id, depth=2)
        assert {forecast, prediction.id, *(edge.artifact.id for edge in prediction.inputs)} == walk(forecast, depth=1)
        assert {model} == walk(model, depth=0)

    def test_limit_keeps_the_newest(self, database: Database) -> None:
        """With more descendants than the limit the newest are shown, and the graph says that it is cut."""
        model = record_run(database, make_training()).outputs[0].artifact
        made = [record_run(database, make_prediction(model, str(number))).id for number in range(6)]
        graph = lineage(database, model.id, up=False, limit=4)
        assert graph.truncated
        assert made[:2:-1] == [node.id for node in graph.nodes if node.type == "run"]
        assert not lineage(database, model.id, limit=16).truncated

    def test_json(self, database: Database) -> None:
        """A graph becomes JSON values."""
        training, _ = record_chain(database)
        graph = lineage(database, training.id, up=False, depth=1)
        model = training.outputs[0].artifact
        assert GraphEdge(source=training.id, target=model.id, role="model") in graph.edges
        assert {
            "id": model.id,
            "type": "artifact",
            "label": "training workspace",
            "kind": "training_workspace",
            "status": "ok",
            "digest": model.digest,
            "created_at": model.created_at.isoformat(),
            "level": 0,
            "stale": [],
        } in graph.to_dict()["nodes"]

    @pytest.mark.parametrize(("heading", "budget"), [("up", 8), ("down", 9)])
    def test_statements_of_a_graph(self, database: Database, heading: str, budget: int) -> None:
        """A graph ten runs deep, and wide, takes a handful of statements, beside one for each step on MySQL."""
        first = record_run(database, make_training())
        for run in (last := [first]):
            inputs = (Edge(role="data", artifact=run.output("model")),)
            if len(last) < 10:
                last.append(record_run(database, replace(make_training(workspace=new_id()), inputs=inputs)))
        for number in range(20):
            record_run(database, make_prediction(first.output("model"), str(number)))
        start = (last[-1] if heading == "up" else first).output("model").id
        steps = 0 if database.engine.dialect.name in walks.AHEAD else 20
        graph = lineage(database, start, up=heading == "up", down=heading == "down", depth=10)
        assert len([node for node in graph.nodes if node.type == "run"]) == (10 if heading == "up" else 29)
        sent = count_statements(
            database, lambda: lineage(database, start, up=heading == "up", down=heading == "down", depth=10)
        )
        assert sent <= budget + steps, sent


class SchemaContract:
    """The migrations make the tables that the code uses."""

    def test_schema_is_that_of_the_tables(self, database: Database) -> None:
        """Alembic finds nothing to change in a migrated database."""
        with database.read() as session:
            options = {"version_table": VERSION_TABLE, "compare_type": True}
            context = MigrationContext.configure(session.connection(), opts=options)
            differences = list(compare_metadata(context, Table.metadata))
        assert not differences

    def test_down_and_up_with_facts(self, database: Database) -> None:
        """The migrations can be undone and done again while there are facts in the tables."""
        record_chain(database)
        with database.write() as session:
            downgrade(session.connection(), "base")
            upgrade(session.connection())
        assert not query.list_runs(database)
        record_chain(database)


class ConcurrencyContract:
    """Writers at the same time."""

    def test_threads_record_the_same_things(self, database: Database) -> None:
        """Runs that finish at once with the same data, config and code share them, and none is lost."""

        def train(number: int) -> RunFact:
            return record_run(database, make_training(data=f"table {number % 2}", workspace=str(number)))

        with ThreadPoolExecutor(8) as pool:
            facts = list(pool.map(train, range(40)))
        assert len({fact.inputs[0].artifact.id for fact in facts}) == 2
        assert {fact.id for fact in facts} == {run.id for run in query.list_runs(database, status="completed")}
        assert len(query.list_artifacts(database, limit=100)) == 42

    def test_writers_in_opposite_order(self, database: Database) -> None:
        """Runs that read the same new datasets in opposite order do not end in a deadlock."""

        def read_both(number: int) -> RunFact:
            pair = [
                Edge(role=f"data {half}", artifact=make_artifact("dataset", f"{number // 2} {half}")) for half in "ab"
            ]
            return record_run(database, Outcome(status="completed", inputs=tuple(pair[:: 1 if number % 2 else -1])))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read_both, range(40)))
        assert len(query.list_artifacts(database, limit=100)) == 40

    def test_threads_start_the_same_flow_run(self, database: Database) -> None:
        """A flow run that two processes start at once is one run."""
        with ThreadPoolExecutor(4) as pool:
            starts = [pool.submit(record.start, database, make_run(flow_run_id="same")) for _ in range(8)]
        assert len({start.result().id for start in starts}) == 1

    def test_threads_finish_the_same_run(self, database: Database) -> None:
        """A run that two processes finish at once has the outputs of one of them."""
        run = record.start(database, make_run())
        with ThreadPoolExecutor(4) as pool:
            ends = [
                pool.submit(record.finish, database, run.id, make_training(workspace=str(number)))
                for number in range(4)
            ]
        assert len({end.result().output("model").id for end in ends}) == 1

    def test_history_costs_nothing(self, database: Database) -> None:
        """The 200th prediction with a model sends as many statements as the second."""
        model = record_run(database, make_training()).outputs[0].artifact

        def predict() -> None:
            record_run(database, make_prediction(model, new_id()), flow="predict")

        predict()
        second = count_statements(database, predict)
        for _ in range(197):
            predict()
        assert second == count_statements(database, predict)
        assert len(query.consumers(database, model.id)) == 50


class LineageContract(
    RunContract,
    RetryContract,
    QueryContract,
    AnnotationContract,
    SearchContract,
    ReadingContract,
    ConfigContract,
    GraphContract,
    GraphPageContract,
    StalenessContract,
    SchemaContract,
    ConcurrencyContract,
):
    """Everything that a lineage database must do, on whatever server."""
