"""Backups, and what comes back from them."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from postgresql import create_postgresql_database
from worlds import World

from chapkit_flows import Resources
from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.errors import BackupNotFound, NotEmpty
from chapkit_flows.lineage import record
from chapkit_flows.lineage.deletions import mark_swept
from chapkit_flows.lineage.dump import dump
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.facts import Outcome
from chapkit_flows.lineage.query import get_run, list_runs
from chapkit_flows.refs import new_id, now
from chapkit_flows.testing.facts import make_run
from chapkit_flows.upkeep.backups import backup, list_backups, restore
from chapkit_flows.upkeep.integrity import Scope, check
from chapkit_flows.upkeep.recovery import rebuild
from chapkit_flows.upkeep.trash import delete


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "backup"))


def test_restores_into_another_place(world: World, target: Store, tmp_path: Path) -> None:
    """A backup brings back rows, bytes and manifests into an empty database and store."""
    run = world.train(b"table", a=b"1", b=b"2")
    delete(world.resources, [run.output("model").id], actor="ana", reason="x")
    made = backup(world.resources, target)
    assert (4, 4, ()) == (made.objects, made.copied, made.missing)
    other = World.make(tmp_path / "other")
    assert made == restore(target, other.resources)
    assert sorted(dump(world.resources.database)) == sorted(dump(other.resources.database))
    assert world.objects() == other.objects()
    assert world.resources.store.manifest_names() == other.resources.store.manifest_names()
    assert [] == other.faults()


def test_restores_into_another_kind(world: World, target: Store, postgresql: str) -> None:
    """What was SQLite and a folder becomes PostgreSQL and another kind of storage."""
    run = world.train(b"table", a=b"1")
    backup(world.resources, target)
    database = open_database(create_postgresql_database(postgresql, f"restored_{new_id().lower()}"))
    store = open_store(f"memory://{uuid.uuid4().hex}")
    try:
        restore(target, Resources(store=store, database=database))
        assert sorted(dump(world.resources.database)) == sorted(dump(database))
        assert run == get_run(database, run.id)
        checked = check(Resources(store=store, database=database), Scope(read_bytes=True))
        assert [] == [found for one in checked for found in one.findings]
    finally:
        database.close()


def test_copies_only_what_is_new(world: World, target: Store) -> None:
    """A second backup copies what has come since; each backup can be restored."""
    world.train(b"table", a=b"1")
    first = backup(world.resources, target)
    world.train(b"table", a=b"1", b=b"new")
    second = backup(world.resources, target)
    assert (2, 5) == (second.copied, second.objects)
    assert [first.id, second.id] == list_backups(target)


def test_run_that_a_retry_completed_is_copied_again(world: World, target: Store, tmp_path: Path) -> None:
    """Manifests of a run that had failed at one backup and is completed at the next say what the database says."""
    data, made, database = world.put(b"table"), world.put_folder({"a": b"1"}), world.resources.database
    run = make_run()
    record.start(database, run)
    failed = record.finish(database, run.id, Outcome(status="failed", error="once"))
    world.resources.store.write_manifest(f"runs/{run.id}", failed.to_dict())
    backup(world.resources, target)
    world.finish(record.start(database, run), data, made)
    backup(world.resources, target)
    backup(world.resources, target)
    other = World.make(tmp_path / "other")
    rebuild(Resources(store=target, database=other.resources.database))
    assert sorted(dump(database)) == sorted(dump(other.resources.database))


def test_restores_the_backup_that_is_named(world: World, target: Store, tmp_path: Path) -> None:
    """An older backup gives the older state."""
    world.train(b"table", a=b"1")
    first = backup(world.resources, target)
    world.train(b"other", a=b"2")
    backup(world.resources, target)
    other = World.make(tmp_path / "other")
    restore(target, other.resources, backup_id=first.id)
    assert 1 == len(list_runs(other.resources.database))
    assert [] == other.faults()


def test_says_what_is_missing(world: World, target: Store) -> None:
    """A backup of a damaged store is made all the same, and names what it lacks."""
    run = world.train(b"table", a=b"1")
    world.damage(run.inputs[0].artifact.digest)
    made = backup(world.resources, target)
    assert (run.inputs[0].artifact.digest,) == made.missing


def test_leaves_out_what_was_given_up(world: World, target: Store) -> None:
    """Bytes of deleted artifacts that were given up are not missed."""
    run = world.train(b"table", a=b"1")
    deletion = delete(world.resources, [run.inputs[0].artifact.id], actor="ana", reason="x")[0]
    mark_swept(world.resources.database, [deletion.id], moment=now())
    world.path_of(run.inputs[0].artifact.digest).unlink()
    assert () == backup(world.resources, target).missing


def test_refuses_a_database_with_runs(world: World, target: Store) -> None:
    """A restore never writes over runs."""
    world.train()
    backup(world.resources, target)
    before = list(dump(world.resources.database))
    with pytest.raises(NotEmpty, match="another database URL"):
        restore(target, world.resources)
    assert before == list(dump(world.resources.database))


@pytest.mark.parametrize("backup_id", [None, "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"])
def test_refuses_what_is_no_backup(world: World, target: Store, backup_id: str | None) -> None:
    """A folder without backups, or without that one, is an error that names it."""
    with pytest.raises(BackupNotFound, match="has no backup"):
        restore(target, world.resources, backup_id=backup_id)
