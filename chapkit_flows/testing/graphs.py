"""What a database must tell of large graphs, of names, of levels, and of what is stale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chapkit_flows.errors import InvalidId
from chapkit_flows.lineage import search
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Cursor, Edge, Newer, RunFact
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.levels import hierarchy
from chapkit_flows.lineage.search import search_artifacts, search_runs
from chapkit_flows.lineage.staleness import stale_reasons
from chapkit_flows.testing.facts import (
    count_statements,
    make_artifact,
    make_prediction,
    make_reading,
    make_training,
    record_reading,
    record_run,
)

URI = "s3://bucket/laos.csv"


def runs_in(graph: Any) -> list[str]:
    """The ids of the runs in a graph, in its order."""
    return [node.id for node in graph.nodes if node.type == "run"]


def record_on(database: Database, training: RunFact, forecast: str = "forecast") -> RunFact:
    """A prediction with the model of a training."""
    return record_run(database, make_prediction(training.output("model"), forecast), flow="predict")


class GraphPageContract:
    """How one goes on where a graph was cut."""

    def test_pages_of_children_are_stable(self, database: Database) -> None:
        """Following the cursors of a node gives each child once although new ones come in between."""
        training = record_run(database, make_training())
        model = training.output("model").id
        expected = [record_on(database, training, str(number)).id for number in range(7)][::-1]
        found: list[str] = []
        cursor: Cursor | None = Cursor(node=model, heading="down")
        while cursor is not None:
            graph = lineage(database, cursor, up=False, depth=1, limit=4)
            found += runs_in(graph)
            cursor = next((one for one in graph.more if one.node == model), None)
            record_on(database, training, f"meanwhile {len(found)}")
        assert expected == found

    @pytest.mark.parametrize("limit", [2, 3, 4, 7, 50])
    @pytest.mark.parametrize("heading", ["up", "down"])
    def test_cursors_lead_to_everything(self, database: Database, limit: int, heading: str) -> None:
        """Whatever the limit, a graph and what its cursors lead to are the whole graph."""
        first = record_run(database, make_training())
        for number in range(3):
            middle = record_on(database, first, str(number))
            forecast = middle.output("prediction")
            inputs = (Edge(role="data", artifact=forecast), Edge(role="model", artifact=first.output("model")))
            last = record_run(database, replace(make_training(workspace=f"w{number}"), inputs=inputs))
        start = last.output("model").id if heading == "up" else first.inputs[0].artifact.id
        directions: Any = {"up": heading == "up", "down": heading == "down"}
        whole = lineage(database, start, **directions)
        assert not whole.more
        nodes, edges, done = set(), set(), set()
        cursors = [Cursor(node=start, heading="up" if heading == "up" else "down")]
        while cursors:
            cursor = cursors.pop()
            done.add(cursor)
            part = lineage(database, cursor, **directions, limit=limit)
            nodes |= {node.id for node in part.nodes}
            edges |= set(part.edges)
            cursors += [one for one in part.more if one not in done]
        assert ({node.id for node in whole.nodes}, set(whole.edges)) == (nodes, edges)

    def test_depth_has_cursors_where_it_goes_on(self, database: Database) -> None:
        """A graph that ends at a depth says from where it goes on, and nothing where nothing follows."""
        training = record_run(database, make_training())
        prediction = record_on(database, training)
        dataset, model = training.inputs[0].artifact.id, training.output("model").id
        graph = lineage(database, dataset, up=False, depth=1)
        assert (False, (Cursor(node=model, heading="down"),)) == (graph.truncated, graph.more)
        assert lineage(database, prediction.id, depth=2).more == ()
        assert (Cursor(node=model, heading="up"),) == lineage(
            database, prediction.id, up=True, down=False, depth=1
        ).more

    def test_before_that_is_no_id(self, database: Database) -> None:
        """A cursor that is no id is refused."""
        training = record_run(database, make_training())
        with pytest.raises(InvalidId, match="'rain' is not an id"):
            lineage(database, Cursor(node=training.id, heading="up", before="rain"))

    def test_levels(self, database: Database) -> None:
        """Predictions stand below the model they were made with, and what a prediction left below it."""
        training = record_run(database, make_training())
        outcome = make_prediction(training.output("model"))
        left = Edge(role="workspace", artifact=make_artifact("prediction_workspace", "left", level=2))
        prediction = record_run(database, replace(outcome, outputs=(*outcome.outputs, left)))
        places = hierarchy(lineage(database, training.inputs[0].artifact.id))
        expected = [
            (0, training.output("model").id, None),
            (1, prediction.output("prediction").id, training.output("model").id),
            (2, left.artifact.id, prediction.output("prediction").id),
        ]
        assert expected == [(place.level, place.id, place.parent) for place in places]


class StalenessContract:
    """What is stale, and why."""

    def test_names_of_each_run(self, database: Database) -> None:
        """An arrow from a dataset has the name by which that run read it."""
        runs = [record_reading(database, uri, "same") for uri in (URI, "https://host/other.csv?sig=1")]
        graph = lineage(database, runs[0].inputs[0].artifact.id)
        assert {run.id: name for run, name in zip(runs, ("laos.csv", "other.csv"), strict=True)} == {
            edge.target: edge.name for edge in graph.edges if edge.role == "data"
        }
        parameters = {"historic": "folder/given.csv"}
        prediction = record_run(database, make_prediction(runs[0].output("model")), parameters=parameters)
        edges = lineage(database, prediction.id, down=False, depth=1).edges
        assert {"given.csv", None} == {edge.name for edge in edges}

    def test_all_that_was_made_from_it(self, database: Database) -> None:
        """Everything downstream of a dataset with a newer version is stale, and says which and since when."""
        old = record_reading(database, URI, "old")
        prediction = record_on(database, old)
        new = record_reading(database, URI, "new")
        newer = new.readings[0]
        dataset = old.inputs[0].artifact.id
        reason = Newer(uri=URI, dataset=dataset, newer=newer.artifact_id, read_at=newer.read_at)
        stale = [dataset, old.id, old.output("model").id, prediction.id, prediction.output("prediction").id]
        current = [new.id, newer.artifact_id, new.output("model").id]
        assert dict.fromkeys(stale, (reason,)) == stale_reasons(database, [*stale, *current])
        graph = lineage(database, prediction.output("prediction").id, depth=1)
        marked = {node.id for node in graph.nodes if node.stale}
        assert {prediction.id, prediction.output("prediction").id, old.output("model").id} == marked
        record_reading(database, URI, "old")
        assert {new.id, newer.artifact_id, new.output("model").id} == set(stale_reasons(database, [*stale, *current]))

    def test_same_bytes_from_elsewhere(self, database: Database) -> None:
        """A run that read the same bytes from where nothing changed is current."""
        moved, kept = (record_reading(database, uri, "same") for uri in (URI, "s3://archive/laos.csv"))
        record_reading(database, URI, "new")
        reasons = stale_reasons(database, [moved.id, kept.id, kept.output("model").id])
        assert {moved.id} == set(reasons)

    def test_dataset_given_by_its_id(self, database: Database) -> None:
        """A run that was given a dataset by its id is stale once any of its URIs has brought another."""
        dataset = record_reading(database, URI, "old").inputs[0]
        run = record_run(database, replace(make_training(workspace="by id"), inputs=(dataset,)))
        assert stale_reasons(database, [run.id]) == {}
        record_reading(database, URI, "new")
        assert {run.id} == set(stale_reasons(database, [run.id]))

    def test_reasons_add_up(self, database: Database) -> None:
        """What was made from two stale datasets says both."""
        first = record_reading(database, URI, "old")
        outcome = make_prediction(first.output("model"))
        historic = make_reading("s3://bucket/historic.csv", outcome.inputs[1])
        prediction = record_run(database, replace(outcome, readings=(historic,)))
        record_reading(database, URI, "new")
        record_reading(database, "s3://bucket/historic.csv", "newer")
        reasons = stale_reasons(database, [prediction.output("prediction").id])
        uris = [reason.uri for reason in reasons[prediction.output("prediction").id]]
        assert sorted(uris, key=len) == [URI, "s3://bucket/historic.csv"]

    @pytest.mark.parametrize("tried", [1, 2, 500])
    def test_found_by_a_filter(self, database: Database, monkeypatch: pytest.MonkeyPatch, tried: int) -> None:
        """A search finds what is stale, or what is not, beside other conditions, in pages, newest first."""
        monkeypatch.setattr(search, "TRIED", tried)
        old = record_reading(database, URI, "old")
        prediction = record_on(database, old)
        new = record_reading(database, URI, "new")
        made = [prediction.output("prediction").id, old.output("model").id, old.inputs[0].artifact.id]
        stale = sorted(made, reverse=True)
        assert stale == [one.id for one in search_artifacts(database, "stale")]
        assert made[1:2] == [one.id for one in search_artifacts(database, "kind = 'training_workspace' and stale")]
        assert stale[1:] == [one.id for one in search_artifacts(database, "stale", before=stale[0])]
        assert stale[:2] == [one.id for one in search_artifacts(database, "stale", limit=2)]
        (historic,) = [edge.artifact.id for edge in prediction.inputs if edge.role == "historic"]
        current = {new.output("model").id, new.inputs[0].artifact.id, historic}
        assert current == {one.id for one in search_artifacts(database, "not stale")}
        assert {prediction.id, old.id} == {one.id for one in search_runs(database, "stale")}
        assert [new.id] == [one.id for one in search_runs(database, "(not stale) and flow = 'train'")]
        assert search_runs(database, "stale and not stale") == []

    def test_statements_of_many_runs(self, database: Database) -> None:
        """As many statements tell it of many things as of few."""
        training = record_reading(database, URI, "old")
        record_reading(database, URI, "new")
        few = [record_on(database, training).id]
        many = [*few, *(record_on(database, training, str(number)).id for number in range(20))]
        assert count_statements(database, lambda: stale_reasons(database, few)) == count_statements(
            database, lambda: stale_reasons(database, many)
        )
