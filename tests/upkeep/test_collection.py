"""Garbage collection: one rule of what lives, and nothing that lives is lost."""

from __future__ import annotations

import io
import os
from datetime import timedelta

import pytest
from worlds import World

from chapkit_flows.errors import UpkeepError
from chapkit_flows.lineage import record
from chapkit_flows.lineage.deletions import find_deletion, record_deletions
from chapkit_flows.lineage.facts import Deletion
from chapkit_flows.refs import ArtifactRef, new_id, now
from chapkit_flows.testing.facts import make_run
from chapkit_flows.upkeep.collection import Policy, collect, explain, find_dead
from chapkit_flows.upkeep.trash import restore

POLICY = Policy()


def throw_away(world: World, artifact: ArtifactRef, *, days: float) -> Deletion:
    """Put an artifact into the trash some days ago."""
    deletion = Deletion(
        id=new_id(),
        artifact_id=artifact.id,
        actor="ana",
        reason="wrong rainfall",
        deleted_at=now() - timedelta(days=days),
    )
    record_deletions(world.resources.database, [deletion])
    return deletion


def test_keeps_what_somebody_needs(world: World) -> None:
    """Old bytes that artifacts name, files of folders too, stay."""
    world.train(b"table", a=b"1", b=b"2")
    world.age(1000)
    before = world.objects()
    found = collect(world.resources, POLICY)
    assert (4, 0, (), 0) == (found.live, found.spared, found.dead, found.removed)
    assert before == world.objects()


def test_removes_what_nobody_needs(world: World) -> None:
    """Old bytes that no artifact names go; a dry run only says so, with size and reason."""
    world.train()
    orphan = world.put(b"of a dead run")
    world.age(8)
    looked = find_dead(world.resources, POLICY)
    ((digest, size, reason),) = [(one.digest, one.size, one.reason) for one in looked.dead]
    assert (orphan.digest, 13, looked.bytes) == (digest, size, 13)
    assert "no artifact names it" in reason
    assert orphan.digest in world.objects()
    assert 1 == collect(world.resources, POLICY).removed
    assert orphan.digest not in world.objects()
    assert [] == world.faults()


def test_spares_the_young(world: World) -> None:
    """Bytes that were stored within the grace period may belong to a run that has not ended."""
    orphan = world.put(b"of a run that goes on")
    world.age(6)
    assert (1, ()) == (collect(world.resources, POLICY).spared, find_dead(world.resources, POLICY).dead)
    assert orphan.digest in world.objects()


def test_spares_what_a_long_run_has_stored(world: World) -> None:
    """A run that is still running protects what it stored, however long ago; one that died long ago does not."""
    orphan = world.put(b"of a long run")
    world.age(10)
    run = record.start(world.resources.database, make_run(started_at=now() - timedelta(days=10.5)))
    assert () == find_dead(world.resources, POLICY).dead
    assert (orphan.digest,) == tuple(
        one.digest for one in find_dead(world.resources, Policy(lease=timedelta(days=10))).dead
    )
    assert "running" == record.start(world.resources.database, run).status


def test_spares_what_is_claimed_again(world: World) -> None:
    """A run that stores old bytes once more makes them young."""
    orphan = world.put(b"the same table as last year")
    world.age(400)
    world.put(b"the same table as last year")
    assert () == collect(world.resources, POLICY).dead
    assert orphan.digest in world.objects()


def test_gives_up_what_is_long_in_the_trash(world: World) -> None:
    """After the retention the bytes of a deleted artifact go, and its row says why; its data stays."""
    run = world.train(b"table", a=b"1")
    model = run.output("model")
    throw_away(world, model, days=31)
    world.age(8)
    found = collect(world.resources, POLICY)
    assert 2 == found.removed
    assert any("deleted by ana: wrong rainfall" in one.reason for one in found.dead)
    deletion = find_deletion(world.resources.database, model.id)
    assert deletion is not None
    assert deletion.swept_at is not None
    assert deletion.to_dict() == world.resources.store.read_manifest(f"deletions/{deletion.id}")
    assert [] == world.faults()
    assert {run.inputs[0].artifact.digest} == world.objects()


def test_keeps_what_is_new_in_the_trash(world: World) -> None:
    """Within the retention the bytes stay, and come back."""
    model = world.train().output("model")
    throw_away(world, model, days=29)
    world.age(1000)
    assert () == collect(world.resources, POLICY).dead
    assert (model.id,) == restore(world.resources, [model.id], actor="bo")


def test_longer_retention_after_a_shorter_one(world: World) -> None:
    """What was given up under a shorter retention is not missed under a longer one."""
    throw_away(world, world.train(a=b"1").output("model"), days=1)
    world.age(8)
    assert 2 == collect(world.resources, Policy(retention=timedelta(0))).removed
    assert () == collect(world.resources, POLICY).dead


def test_keeps_what_another_artifact_needs(world: World) -> None:
    """Bytes that a deleted artifact shares with one that lives stay."""
    first, second = world.train(a=b"1", b=b"2"), world.train(a=b"1", c=b"3")
    throw_away(world, first.output("model"), days=31)
    world.age(8)
    assert 2 == collect(world.resources, POLICY).removed, "the list of files and b"
    assert [] == world.faults()
    assert second.output("model").digest in world.objects()


def test_removes_unfinished_writes(world: World) -> None:
    """What a dead process left in tmp/ goes when it is old."""
    world.put(b"x")
    leftover = world.folder / "artifacts" / "tmp" / "dead.part"
    leftover.write_bytes(b"half")
    assert 0 == collect(world.resources, POLICY).unfinished
    os.utime(leftover, (0, 0))
    assert 1 == collect(world.resources, POLICY).unfinished


def test_removes_nothing_while_a_folder_cannot_be_read(world: World) -> None:
    """If the list of files of a folder is gone, its files cannot be told from garbage: nothing is removed."""
    model = world.train(a=b"1").output("model")
    orphan = world.put(b"orphan")
    world.age(8)
    world.path_of(model.digest).unlink()
    with pytest.raises(UpkeepError, match=rf"{model.digest}.*fsck"):
        collect(world.resources, POLICY)
    assert orphan.digest in world.objects()


def test_refuses_a_grace_that_is_too_short() -> None:
    """Writers rely on a day: a shorter grace period is refused."""
    with pytest.raises(UpkeepError, match="2 days or more"):
        Policy(grace=timedelta(hours=1))


def test_explains(world: World) -> None:
    """Each part of the rule that speaks for or against an artifact's bytes is a sentence."""
    run = world.train(b"table", table=b"table")
    data = run.inputs[0].artifact
    throw_away(world, data, days=31)
    lines = explain(world.resources, data.id, POLICY)
    assert [True, True, True] == [
        any(part in line for line in lines)
        for part in (
            f"may go: the dataset {data.id} was deleted",
            f"lives: the folder {run.output('model').id} lists it as table",
            "within the grace period",
        )
    ]
    world.age(8)
    assert 2 == len(explain(world.resources, data.id, POLICY))
    other = world.train(b"other").inputs[0].artifact
    assert f"lives: the dataset {other.id} names it" in explain(world.resources, other.id, POLICY)


def test_stores_again_what_was_collected(world: World) -> None:
    """A table whose bytes were collected can come in again and is one dataset with the old one."""
    run = world.train(b"table")
    throw_away(world, run.inputs[0].artifact, days=31)
    world.age(8)
    collect(world.resources, POLICY)
    again = world.train(b"table", other=b"1")
    assert run.inputs[0].artifact.id == again.inputs[0].artifact.id
    assert None is find_deletion(world.resources.database, run.inputs[0].artifact.id)
    assert [] == world.faults()
    with world.resources.store.open(run.inputs[0].artifact.digest) as file:
        assert io.BytesIO(b"table").read() == file.read()


@pytest.mark.parametrize("folder", ["folds", "places"])
def test_forgets_work_whose_result_is_gone(folder: str, world: World) -> None:
    """The note of a fold, or a place, goes with what it names; one of what lives, or that is young, stays."""
    kept = world.train(b"table", a=b"1").output("model").digest
    orphan = world.put(b"the forecast of a fold").digest
    for name, digest in (("kept", kept), ("gone", orphan), ("lost", f"sha256:{'0' * 64}")):
        world.resources.store.write_manifest(f"{folder}/{name}", {"saved": {"digest": digest}, "seconds": 1.0})
    world.age(8)
    world.resources.store.write_manifest(f"{folder}/young", {"saved": {"digest": orphan}, "seconds": 1.0})
    found = collect(world.resources, POLICY)
    assert (1, 2) == (found.removed, found.folds)
    assert [f"{folder}/kept", f"{folder}/young"] == world.resources.store.manifest_names(folder)
