"""The trash, with its manifests."""

from __future__ import annotations

import pytest
from worlds import World

from chapkit_flows.errors import ArtifactNotFound, InvalidId, UpkeepError
from chapkit_flows.lineage.deletions import find_deletion, get_usable, list_deletions
from chapkit_flows.upkeep.trash import delete, restore

ABSENT = "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"


def test_deletes_and_restores(world: World) -> None:
    """An artifact goes into the trash with actor and reason, once, and comes back."""
    model = world.train().output("model")
    (deletion,) = delete(world.resources, [model.id, model.id], actor="ana", reason=" wrong rainfall ")
    assert ("ana", "wrong rainfall") == (deletion.actor, deletion.reason)
    assert () == delete(world.resources, [model.id], actor="bo", reason="again")
    assert (model.id,) == restore(world.resources, [model.id], actor="bo")
    assert () == restore(world.resources, [model.id], actor="bo")
    assert model == get_usable(world.resources.database, model.id)
    assert "bo" == world.resources.store.read_manifest(f"deletions/{deletion.id}")["restored_by"]


@pytest.mark.parametrize(("artifact_id", "error"), [(ABSENT, ArtifactNotFound), ("rain", InvalidId)])
def test_deletes_all_or_nothing(world: World, artifact_id: str, error: type[Exception]) -> None:
    """One wrong id keeps the others out of the trash."""
    model = world.train().output("model")
    with pytest.raises(error, match=artifact_id):
        delete(world.resources, [model.id, artifact_id], actor="ana", reason="x")
    assert [] == list_deletions(world.resources.database)


def test_needs_a_reason(world: World) -> None:
    """A deletion without a reason is refused."""
    model = world.train().output("model")
    with pytest.raises(UpkeepError, match="reason"):
        delete(world.resources, [model.id], actor="ana", reason="  ")


def test_does_not_restore_what_is_gone(world: World) -> None:
    """An artifact whose bytes are gone stays in the trash, and the message says so."""
    data = world.train().inputs[0].artifact
    delete(world.resources, [data.id], actor="ana", reason="x")
    world.path_of(data.digest).unlink()
    with pytest.raises(UpkeepError, match=f"bytes of {data.id}.*restore FROM"):
        restore(world.resources, [data.id], actor="ana")
    assert find_deletion(world.resources.database, data.id)
