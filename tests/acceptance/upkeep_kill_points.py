"""Look after a world again and again, each time killed one step later: upkeep_kill_points.py WORK FOLDER

Each call that changes the disk and each commit is a step; a child is killed before it, and one after it. The last line
says how each child ended.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from kill_points import arm
from sqlalchemy import event
from sqlalchemy.engine import Engine

sys.path.insert(0, str(Path(__file__).parents[1] / "upkeep"))
from worlds import World

from chapkit_flows.artifacts.store import open_store
from chapkit_flows.errors import PromotionConflict
from chapkit_flows.flows.config_history import record_config
from chapkit_flows.lineage.assignments import Decision
from chapkit_flows.lineage.deletions import record_deletions
from chapkit_flows.lineage.facts import Deletion, NewEntry
from chapkit_flows.lineage.query import list_artifacts, list_runs
from chapkit_flows.refs import new_id, now
from chapkit_flows.registry import promote, register
from chapkit_flows.testing.facts import make_config
from chapkit_flows.upkeep import annotations, backups, bulk, trash
from chapkit_flows.upkeep.collection import Policy, collect
from chapkit_flows.upkeep.recovery import rebuild


def prepare(world: World) -> None:
    """Two runs that share bytes, a model in the trash for long, one for a day, and bytes of a dead run."""
    old, new, kept = world.train(b"1", a=b"shared", b=b"1"), world.train(b"2", a=b"shared"), world.train(b"3", a=b"3")
    world.put(b"of a dead run")
    thrown = [(old.output("model"), 40), (new.output("model"), 1)]
    for artifact, days in thrown:
        moment = now() - timedelta(days=days)
        deletion = Deletion(id=new_id(), artifact_id=artifact.id, actor="ana", reason="x", deleted_at=moment)
        world.resources.store.write_manifest(f"deletions/{deletion.id}", deletion.to_dict())
        record_deletions(world.resources.database, [deletion])
    assert kept.status == "completed"
    world.age(8)
    backups.backup(world.resources, open_store(str(world.folder / "earlier")))


def delete(world: World) -> None:
    """Put models into the trash."""
    models = list_artifacts(world.resources.database, kind="dataset")
    trash.delete(world.resources, [model.id for model in models], actor="ana", reason="x")


def delete_many(world: World) -> None:
    """Put models into the trash over a filter, in batches of two."""
    batches = bulk.find_artifacts(world.resources.database, "kind = 'dataset'", size=2)
    list(bulk.delete(world.resources, batches, actor="ana", reason="x"))


def tag_many(world: World) -> None:
    """Tag what has no such tag, in batches of two."""
    batches = bulk.find_artifacts(world.resources.database, "not tag.site = 'A'", size=2)
    list(bulk.tag(world.resources, batches, {"site": "A"}, by="ana"))


def say(world: World) -> None:
    """Tag a run, write a note on its model, and apply a config."""
    newest = list_runs(world.resources.database)[0]
    annotations.set_tags(world.resources, newest.id, {"site": "A"}, by="ana")
    annotations.add_note(world.resources, newest.output("model").id, "after the floods", by="ana")
    record_config(world.resources, make_config(n_lags=5), NewEntry(origin="apply", author="ana"))


def bring_back(world: World) -> None:
    """Take out of the trash what is there for a day."""
    newest = list_runs(world.resources.database)[1].output("model")
    trash.restore(world.resources, [newest.id], actor="bo")


def gc(world: World) -> None:
    """Remove what nobody needs."""
    collect(world.resources, Policy())


def backup(world: World) -> None:
    """Copy everything."""
    backups.backup(world.resources, open_store(str(world.folder / "backup")))


def restore(world: World) -> None:
    """Bring the backup back, into another place."""
    other = World.make(world.folder / "other")
    backups.restore(open_store(str(world.folder / "earlier")), other.resources)
    other.resources.database.close()


def recover(world: World) -> None:
    """Make the database again, in another place."""
    (world.folder / "other").mkdir(exist_ok=True)
    other = World.make(world.folder / "other")
    rebuild(type(other.resources)(store=world.resources.store, database=other.resources.database))
    other.resources.database.close()


def crown(world: World) -> None:
    """Register the newest model, and make it the champion."""
    newest = list_runs(world.resources.database)[0].output("model")
    version = register(world.resources, newest.id, by="ana")
    with suppress(PromotionConflict):  # it is the champion already
        promote(
            world.resources,
            version,
            alias="champion",
            expected=None,
            decision=Decision(actor="ana", reason="the best"),
        )


WORKS: dict[str, Callable[[World], None]] = {
    work.__name__: work
    for work in (delete, delete_many, tag_many, say, bring_back, crown, gc, backup, restore, recover)
}


def die_at(step: int, moment: str) -> None:
    """Commits are steps too, beside the calls that change the disk."""
    arm(step, moment)
    touch = os.unlink  # counted by `arm`; of a name that cannot be there

    def count(_connection: object) -> None:
        with suppress(OSError):
            touch("/nowhere/a commit")

    event.listen(Engine, "commit", count)


def run_child(work: Callable[[World], None], folder: Path, step: int, moment: str) -> int:
    """Fork, die at the point or finish, and say how it ended."""
    child = os.fork()
    if child == 0:
        world = World.make(folder)
        die_at(step, moment)
        work(world)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    work, folder = WORKS[sys.argv[1]], Path(sys.argv[2])
    template = World.make(folder / "template")
    prepare(template)
    template.resources.database.close()
    endings = []
    # Copying takes many like steps: there every fourth is enough.
    for step in range(1, 400, 4 if work in (backup, restore) else 1):
        for moment in ("before", "after"):
            root = folder / f"{step}-{moment}"
            shutil.copytree(template.folder, root)
            endings.append((root.name, run_child(work, root, step, moment)))
        if [0, 0] == [code for _, code in endings[-2:]]:
            break
    print(json.dumps(endings))


if __name__ == "__main__":
    main()
