"""Deleting, collecting, backing up, restoring and rebuilding, killed at every step."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import upkeep_kill_points as points
from killed_works import UPKEEP
from upkeep_kill_points import World

from chapkit_flows import Resources
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.errors import NotEmpty
from chapkit_flows.lineage.annotations import history, load_tags
from chapkit_flows.lineage.configs import config_history, list_heads
from chapkit_flows.lineage.deletions import find_deletion
from chapkit_flows.lineage.dump import dump
from chapkit_flows.lineage.query import list_artifacts, list_runs
from chapkit_flows.lineage.registry import assignments, scan_versions
from chapkit_flows.testing.facts import make_config
from chapkit_flows.upkeep import backups
from chapkit_flows.upkeep.recovery import rebuild


@pytest.mark.parametrize(("work", "least"), UPKEEP.items())
def test_killed_at_every_step(tmp_path: Path, work: str, least: int) -> None:
    """Whenever the process dies, no artifact lacks bytes that it should have, and the work done again completes."""
    done = subprocess.run(
        [sys.executable, points.__file__, work, str(tmp_path)], capture_output=True, text=True, timeout=400
    )
    assert 0 == done.returncode, done.stderr
    endings = json.loads(done.stdout)
    assert {0, -signal.SIGKILL} == {code for _, code in endings}
    assert least <= sum(code == -signal.SIGKILL for _, code in endings)

    for point, _ in endings:
        world = World.make(tmp_path / point)
        assert [] == world.faults(), point
        assert_all_is_kept(world, point)
        try:
            points.WORKS[work](world)
        except NotEmpty:
            assert work == "restore"  # the rows are its last step: everything is there
        assert [] == world.faults(), point
        CHECKS[work](world)
        world.resources.database.close()


def assert_all_is_kept(world: World, point: str) -> None:
    """Whatever the rows say of runs, artifacts and configs a rebuild would find beside the objects."""
    database, store = world.resources.database, world.resources.store
    kept = {name: store.read_manifest(name) for name in store.manifest_names()}
    for thing in (*list_runs(database), *list_artifacts(database)):
        document = kept.get(f"annotations/{thing.id}", {"said": []})
        assert all(said.to_dict() in document["said"] for said in history(database, thing.id)), point
    entries = [entry for head in list_heads(database) for entry in config_history(database, "rain-config", "weekly")]
    assert {f"configs/{entry.id}" for entry in entries} <= kept.keys(), point


def is_said(world: World) -> None:
    newest = list_runs(world.resources.database)[0]
    assert {newest.id: {"site": "A"}} == load_tags(world.resources.database, [newest.id])
    assert {"after the floods"} == {said.text for said in history(world.resources.database, newest.output("model").id)}
    assert [make_config(n_lags=5).digest] == [head.entry.digest for head in list_heads(world.resources.database)]
    assert_all_is_kept(world, "at the end")


def is_deleted(world: World) -> None:
    assert [] == list_artifacts(world.resources.database, kind="dataset")


def is_tagged(world: World) -> None:
    """Each artifact has one tag, in the database and, for a rebuild, beside the objects."""
    database, store = world.resources.database, world.resources.store
    for artifact in list_artifacts(database):
        said = history(database, artifact.id)
        assert [("set", "site", "A")] == [(item.action, item.key, item.text) for item in said]
        assert [item.to_dict() for item in said] == store.read_manifest(f"annotations/{artifact.id}")["said"]


def is_back(world: World) -> None:
    model = list_runs(world.resources.database)[1].output("model")
    assert find_deletion(world.resources.database, model.id) is None


def is_champion(world: World) -> None:
    """The model has one version, which is the champion, in the database and beside the objects."""
    made = World.make(world.folder / "other").resources
    rebuild(Resources(store=world.resources.store, database=made.database))
    for database in (world.resources.database, made.database):
        (version,) = scan_versions(database, "rain")
        assert list_runs(database)[0].output("model").id == version.artifact_id
        assert [("promote", 1)] == [(change.action, change.number) for change in assignments(database, "rain")]
    made.database.close()


def is_collected(world: World) -> None:
    # Three tables, one of them also a file of a model; two models that stay, each a list of files; one more file.
    assert 3 + 2 + 1 == len(world.objects())
    deletion = find_deletion(world.resources.database, list_runs(world.resources.database)[2].output("model").id)
    assert deletion is not None
    assert deletion.swept_at is not None


def can_be_restored(world: World) -> None:
    other = World.make(world.folder / "other")
    backups.restore(open_store(str(world.folder / "backup")), other.resources)
    assert sorted(dump(world.resources.database)) == sorted(dump(other.resources.database))
    assert [] == other.faults()
    other.resources.database.close()


def is_restored(world: World) -> None:
    other = World.make(world.folder / "other")
    assert sorted(dump(world.resources.database)) == sorted(dump(other.resources.database))
    assert [] == other.faults()
    other.resources.database.close()


def is_recovered(world: World) -> None:
    other = World.make(world.folder / "other")
    assert sorted(dump(world.resources.database)) == sorted(dump(other.resources.database))
    other.resources.database.close()


CHECKS = {
    "delete": is_deleted,
    "delete_many": is_deleted,
    "tag_many": is_tagged,
    "say": is_said,
    "bring_back": is_back,
    "crown": is_champion,
    "gc": is_collected,
    "backup": can_be_restored,
    "restore": is_restored,
    "recover": is_recovered,
}
