"""The contract of a lineage database that keeps a trash and can be dumped. Define a fixture `database`."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from chapkit_flows.errors import ArtifactDeleted, NotEmpty
from chapkit_flows.lineage import query, record
from chapkit_flows.lineage.deletions import (
    close_deletions,
    expired_deletions,
    find_deletion,
    get_usable,
    in_trash,
    list_deletions,
    live_objects,
    mark_swept,
    record_deletions,
)
from chapkit_flows.lineage.dump import dump, load_dump
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import Deletion, Edge, Outcome, deletion_from_dict, run_from_dict
from chapkit_flows.refs import ArtifactRef, new_id, now
from chapkit_flows.testing.facts import make_run, make_training, record_chain, record_run

DAY = timedelta(days=1)


def delete(database: Database, artifact: ArtifactRef, **fields: Any) -> Deletion:
    """Put an artifact into the trash."""
    values = {"id": new_id(), "actor": "ana", "reason": "wrong rainfall"} | fields
    deletion = Deletion(artifact_id=artifact.id, **values)
    record_deletions(database, [deletion])
    return deletion


class DeletionContract:
    """The trash."""

    def test_deleted_artifact_is_in_the_trash(self, database: Database) -> None:
        """A deletion is read back as it was recorded; the artifact and its lineage stay."""
        training, _ = record_chain(database)
        model = training.output("model")
        deletion = delete(database, model)
        assert deletion == find_deletion(database, model.id)
        assert {model.id: deletion} == in_trash(database, {model.id, training.inputs[0].artifact.id})
        assert [deletion] == list_deletions(database)
        assert model == query.get_artifact(database, model.id)
        assert training.id == getattr(query.producer(database, model.id), "id", None)
        assert deletion == deletion_from_dict(deletion.to_dict())

    def test_deleted_artifact_is_not_listed(self, database: Database) -> None:
        """Lists leave out what is in the trash, unless they are asked for certain bytes."""
        training, prediction = record_chain(database)
        model = training.output("model")
        delete(database, model)
        assert model.id not in {one.id for one in query.list_artifacts(database)}
        assert [prediction.output("prediction")] == query.list_artifacts(database, kind="prediction")
        assert [model] == query.list_artifacts(database, digest=model.digest)

    def test_deleted_artifact_is_not_usable(self, database: Database) -> None:
        """Reading a deleted artifact is refused with who, why, and what to do."""
        training, _ = record_chain(database)
        model = training.output("model")
        assert model == get_usable(database, model.id)
        deletion = delete(database, model)
        with pytest.raises(ArtifactDeleted, match=rf"by ana: wrong rainfall.*artifacts restore {model.id}"):
            get_usable(database, model.id)
        mark_swept(database, [deletion.id], moment=now())
        with pytest.raises(ArtifactDeleted, match="from a backup"):
            get_usable(database, model.id)

    def test_restored_artifact_is_usable(self, database: Database) -> None:
        """What comes out of the trash is as before; the history of its deletion stays."""
        training, _ = record_chain(database)
        model = training.output("model")
        delete(database, model)
        with database.write() as session:
            close_deletions(session, [model.id], actor="bo", moment=now())
        assert model == get_usable(database, model.id)
        assert list_deletions(database) == []
        again = delete(database, model)
        assert again == find_deletion(database, model.id)

    def test_data_that_a_run_reads_again_leaves_the_trash(self, database: Database) -> None:
        """A dataset that was deleted and is read again, from where it came, is wanted again."""
        first = record_run(database, make_training())
        data = first.inputs[0].artifact
        delete(database, data)
        second = record_run(database, make_training(workspace="other"))
        assert data.id == second.inputs[0].artifact.id
        assert None is find_deletion(database, data.id)

    def test_live_objects_are_those_that_somebody_needs(self, database: Database) -> None:
        """What is in the trash lives until its time is over."""
        training, _ = record_chain(database)
        model = training.output("model")
        every = {(one.digest, one.codec) for one in query.scan_artifacts(database)}
        deletion = delete(database, model, deleted_at=now() - 3 * DAY)
        assert every == set(live_objects(database, deleted_before=now() - 4 * DAY))
        assert every - {(model.digest, model.codec)} == set(live_objects(database, deleted_before=now() - 2 * DAY))
        assert list(expired_deletions(database, deleted_before=now() - 4 * DAY)) == []
        assert [(model, deletion)] == list(expired_deletions(database, deleted_before=now() - 2 * DAY))
        mark_swept(database, [deletion.id], moment=now())
        assert list(expired_deletions(database, deleted_before=now() - 2 * DAY)) == []

    def test_same_bytes_under_two_artifacts(self, database: Database) -> None:
        """Bytes that another artifact needs too live on."""
        first, second = (record_run(database, make_training(workspace="same")) for _ in range(2))
        delete(database, first.output("model"), deleted_at=now() - 3 * DAY)
        digests = {digest for digest, _ in live_objects(database, deleted_before=now())}
        assert second.output("model").digest in digests

    def test_scan_reads_all_in_pages(self, database: Database) -> None:
        """A scan gives each artifact once, oldest first, from any point."""
        for number in range(3):
            record_run(database, make_training(workspace=str(number)))
        ids = [one.id for one in query.scan_artifacts(database, page=2)]
        assert sorted(set(ids)) == ids
        assert len(ids) == 4
        assert ids[2:] == [one.id for one in query.scan_artifacts(database, after=ids[1], page=2)]

    def test_oldest_running(self, database: Database) -> None:
        """The oldest run that is running protects what it has stored, if it is not older than a run may be."""
        record_chain(database)
        assert None is query.oldest_running(database, since=now() - DAY)
        run = record.start(database, make_run(started_at=now() - 2 * DAY))
        assert run.started_at == query.oldest_running(database, since=now() - 3 * DAY)
        assert None is query.oldest_running(database, since=now() - DAY)


class DumpContract:
    """The whole database as text, and runs from their own record."""

    def test_dump_comes_back(self, database: Database) -> None:
        """A dump loaded into an empty database of another kind gives the same dump."""
        training, _ = record_chain(database)
        record_run(database, Outcome(status="failed", error="it broke", metrics={"a": math.nan, "b": -math.inf}))
        record.start(database, make_run(started_at=now()))
        delete(database, training.output("model"))
        lines = list(dump(database))
        other = open_database("sqlite://")
        try:
            assert len(lines) - 1 == load_dump(other, lines)
            assert sorted(lines) == sorted(dump(other))
            assert training == query.get_run(other, training.id)
        finally:
            other.close()

    def test_dump_is_not_loaded_over_runs(self, database: Database) -> None:
        """A database that has runs is not written over."""
        record_chain(database)
        lines = list(dump(database))
        with pytest.raises(NotEmpty):
            load_dump(database, lines)
        assert lines == list(dump(database))

    def test_runs_come_back_from_their_record(self, database: Database) -> None:
        """Runs that are recorded from their own documents give the same database."""
        runs = [*record_chain(database), record_run(database, Outcome(status="failed", error="x" * 5000))]
        runs.append(record_run(database, Outcome(status="completed", metrics={"a": math.nan, "b": math.inf})))
        inputs = (Edge(role="data", artifact=runs[0].inputs[0].artifact),)
        runs.append(record_run(database, Outcome(status="cancelled", inputs=inputs)))
        facts = [run_from_dict(run.to_dict()) for run in runs]
        other = open_database("sqlite://")
        try:
            assert record.restore_runs(other, facts) == 5
            assert record.restore_runs(other, facts) == 0
            assert sorted(dump(database)) == sorted(dump(other))
        finally:
            other.close()
