"""A clock that moves backwards, and ids that are taken."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from ulid import ULID
from worlds import World

from chapkit_flows import Resources
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.errors import LineageError
from chapkit_flows.lineage import record
from chapkit_flows.lineage.deletions import find_deletion, record_deletions
from chapkit_flows.lineage.dump import dump
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.facts import Deletion
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.query import list_artifacts, list_runs
from chapkit_flows.lineage.search import search_runs
from chapkit_flows.refs import digest_of, new_id, now
from chapkit_flows.testing.facts import make_prediction, make_run, make_training, record_run
from chapkit_flows.testing.stores import key_of, plant
from chapkit_flows.upkeep.collection import Policy, collect
from chapkit_flows.upkeep.recovery import rebuild
from chapkit_flows.upkeep.trash import restore

DAY = timedelta(days=1)


def test_bytes_from_the_future_stay(world: World) -> None:
    """What was written before the clock moved back is not collected until the clock has passed it by."""
    run, orphan = world.train(b"table", a=b"1"), world.put(b"of a dead run")
    world.age(-3)
    assert 0 == collect(world.resources, Policy()).removed
    assert orphan.digest in world.objects()
    world.age(8)
    assert 1 == collect(world.resources, Policy()).removed
    assert [] == world.faults()
    assert [run.id] == [one.id for one in list_runs(world.resources.database)]


def test_deletion_from_the_future_can_be_undone(world: World) -> None:
    """What was deleted before the clock moved back stays in the trash, and comes out of it."""
    model = world.train(b"table", a=b"1").output("model")
    deletion = Deletion(id=new_id(), artifact_id=model.id, actor="ana", reason="x", deleted_at=now() + DAY)
    world.resources.store.write_manifest(f"deletions/{deletion.id}", deletion.to_dict())
    record_deletions(world.resources.database, [deletion])
    world.age(1000)
    collect(world.resources, Policy())
    found = find_deletion(world.resources.database, model.id)
    assert found is not None
    assert found.swept_at is None
    assert (model.id,) == restore(world.resources, [model.id], actor="bo")
    assert [] == world.faults()


def test_run_that_ends_before_it_begins(world: World, tmp_path: Path) -> None:
    """A run whose clock moved back between start and end keeps both times and is rebuilt the same."""
    database, store = world.resources.database, world.resources.store
    model = record_run(database, make_training(), started_at=now() + DAY)
    early = replace(make_prediction(model.outputs[0].artifact), finished_at=now() - DAY)
    prediction = record_run(database, early, flow="predict")
    for run in (model, prediction):
        assert run.finished_at is not None
        assert run.finished_at < run.started_at
        store.write_manifest(f"runs/{run.id}", run.to_dict())
    other = Resources(store=store, database=open_database(f"sqlite:///{tmp_path / 'rebuilt.db'}"))
    assert () == rebuild(other).findings
    assert _without_names(database) == _without_names(other.database)
    graph = lineage(other.database, prediction.id)
    assert {model.id, prediction.id} == {node.id for node in graph.nodes if node.type == "run"}
    moment = now().isoformat()
    found = search_runs(database, f"started > {moment}")
    assert [model.id] == [run.id for run in found]


def _without_names(database: object) -> list[str]:
    rows = [json.loads(line) for line in dump(database)]  # type: ignore[arg-type]
    return sorted(json.dumps(row, sort_keys=True) for row in rows if row.get("table") != "lineage_config_version")


def test_pages_with_ids_from_the_past(world: World) -> None:
    """Runs and artifacts whose ids were made by a clock that had moved back are on one page each, once."""
    database = world.resources.database
    expected = []
    for hours in (0, -5, 3, -30, 1):
        made = make_training(f"table {hours}", f"model {hours}")
        moment = now() + timedelta(hours=hours)
        expected.append(record_run(database, made, id=str(ULID.from_datetime(moment)), started_at=moment).id)
    seen, before = [], None
    while page := list_runs(database, limit=2, before=before):
        seen += [run.id for run in page]
        before = page[-1].id
        if len(seen) == 2:  # one more comes in, with an id behind the page that is being read
            late = str(ULID.from_datetime(now() - 10 * DAY))
            expected.append(record_run(database, make_training("late", "late"), id=late).id)
    assert sorted(expected, reverse=True) == seen
    assert 12 == len(list_artifacts(database))


def test_removal_that_seems_to_go_on_for_years(tmp_path: Path) -> None:
    """A writer does not wait for a removal that a dead process announced before the clock moved back."""
    store = open_store(f"memory://clock-{new_id()}")
    store.put(io.BytesIO(b"first"))
    store._write_json("sweep.json", {"until": (now() + 365 * DAY).isoformat()})
    digest = digest_of(b"wanted")
    plant(store, key_of(digest), b"another size")
    assert digest == store.put(io.BytesIO(b"wanted")).digest
    with store.open(digest) as file:
        assert b"wanted" == file.read()


@pytest.mark.parametrize("status", ["running", "completed", "failed"])
def test_run_id_that_is_taken(world: World, status: str) -> None:
    """A run with the id of another flow run's run is refused, and changes nothing of it."""
    database = world.resources.database
    first = record.start(database, make_run(flow_run_id="f1"))
    if status != "running":
        first = record.finish(database, first.id, replace(make_training(), status=status))  # type: ignore[arg-type]
    with pytest.raises(LineageError, match=f"{first.id} is recorded already, as the flow run f1"):
        record.start(database, make_run("predict", id=first.id, flow_run_id="f2"))
    assert [first] == list_runs(database)
