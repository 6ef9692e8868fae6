"""The contract of works over a filter: a lineage database beside a store. Define a fixture `database`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.errors import InvalidFilter, LineageError, StoreUnavailable, UpkeepError
from chapkit_flows.lineage.annotations import history, load_tags
from chapkit_flows.lineage.deletions import list_deletions
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.query import list_artifacts
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.resources import Resources
from chapkit_flows.testing.facts import make_training, record_run
from chapkit_flows.upkeep import bulk
from chapkit_flows.upkeep.annotations import add_note

MODELS = "kind = 'training_workspace'"


def record_models(resources: Resources, count: int) -> list[ArtifactRef]:
    """Trained models with their bytes, the newest first."""
    for number in range(count):
        content = f"model {number}"
        with resources.store.writer() as sink:
            sink.write(content.encode())
        record_run(resources.database, make_training(workspace=content))
    return list_artifacts(resources.database, kind="training_workspace")


def in_batches(resources: Resources, where: str = MODELS, *, trash: bool = False) -> Iterator[list[ArtifactRef]]:
    """Batches of two."""
    return bulk.find_artifacts(resources.database, where, trash=trash, size=2)


def tag_all(resources: Resources) -> Iterator[bulk.Step]:
    """Tag what has no such tag: each batch changes what the filter is true of."""
    return bulk.tag(resources, in_batches(resources, f"{MODELS} and not tag.site = 'A'"), {"site": "A"}, by="ana")


def delete_all(resources: Resources) -> Iterator[bulk.Step]:
    """Delete models."""
    return bulk.delete(resources, in_batches(resources), actor="ana", reason="wrong rainfall")


class BulkContract:
    """Tag, delete and restore over a filter."""

    @pytest.fixture
    def resources(self, database: Database, tmp_path: Path) -> Resources:
        """The database, and a store on a disk."""
        return Resources(store=open_store(str(tmp_path / "store")), database=database)

    def test_deletes_and_restores_all_that_a_filter_chooses(self, resources: Resources) -> None:
        """Each batch of what is chosen goes and comes back, newest first, though none of it is chosen any more."""
        models = record_models(resources, 5)
        assert [(step.matched, step.changed) for step in delete_all(resources)] == [(2, 2), (2, 2), (1, 1)]
        assert list(in_batches(resources)) == []
        assert [one.kind for one in list_artifacts(resources.database)] == ["dataset"]
        assert {one.id for one in models} == {one.artifact_id for one in list_deletions(resources.database)}
        steps = list(bulk.restore(resources, in_batches(resources, trash=True), actor="bo"))
        assert [step.changed for step in steps] == [2, 2, 1]
        assert models == list_artifacts(resources.database, kind="training_workspace")
        assert list(in_batches(resources, trash=True)) == []

    def test_tags_all_that_a_filter_chooses(self, resources: Resources) -> None:
        """Tags are set and removed with author and history, in the database and beside the objects."""
        ids = [one.id for one in record_models(resources, 5)]
        assert [step.changed for step in tag_all(resources)] == [2, 2, 1]
        assert list(tag_all(resources)) == []
        changes = {"site": None, "year": "2024"}
        assert [step.changed for step in bulk.tag(resources, in_batches(resources), changes, by="bo")] == [2, 2, 1]
        assert [step.changed for step in bulk.tag(resources, in_batches(resources), changes, by="bo")] == [0, 0, 0]
        assert {key: {"year": "2024"} for key in ids} == load_tags(resources.database, ids)
        for one in ids:
            said = history(resources.database, one)
            expected = [("set", "site", "ana"), ("remove", "site", "bo"), ("set", "year", "bo")]
            assert expected == [(item.action, item.key, item.author) for item in said]
            kept = resources.store.read_manifest(f"annotations/{one}")
            assert {"subject_id": one, "said": [item.to_dict() for item in said]} == kept

    def test_note_that_is_written_meanwhile(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a bulk tag and a note on the same thing, written at once, both are kept beside the objects."""
        (model,) = record_models(resources, 1)
        write = Store.write_manifest
        with ThreadPoolExecutor(1) as pool:
            notes: list[Future[object]] = []

            def let_note_in(store: Store, name: str, document: dict[str, object]) -> None:
                if not notes:
                    notes.append(pool.submit(add_note, resources, model.id, "after the floods", by="bo"))
                    wait(notes, timeout=0.5)  # it waits for the tag; if it did not, it would be through by then
                write(store, name, document)

            monkeypatch.setattr(Store, "write_manifest", let_note_in)
            assert [step.changed for step in tag_all(resources)] == [1]
        said = history(resources.database, model.id)
        assert {"A", "after the floods"} == {item.text for item in said}
        kept = resources.store.read_manifest(f"annotations/{model.id}")
        assert [item.to_dict() for item in said] == kept["said"]

    def test_tags_runs(self, resources: Resources) -> None:
        """Runs are tagged over a filter as artifacts are."""
        record_models(resources, 3)
        batches = bulk.find_runs(resources.database, "metric.crps < 20", size=2)
        assert [step.changed for step in bulk.tag(resources, batches, {"site": "A"}, by="ana")] == [2, 1]
        assert [len(page) for page in bulk.find_runs(resources.database, "tag.site = 'A'", size=2)] == [2, 1]

    @pytest.mark.parametrize("work", [tag_all, delete_all])
    def test_what_comes_meanwhile_is_left_alone(
        self, resources: Resources, work: Callable[[Resources], Iterator[bulk.Step]]
    ) -> None:
        """A model that is trained between two batches belongs to no batch, and each other model to one."""
        record_models(resources, 5)
        steps = work(resources)
        first = next(steps)
        record_models(resources, 1)
        assert first.changed + sum(step.changed for step in steps) == 5
        assert [step.changed for step in work(resources)] == [1]

    @pytest.mark.parametrize("work", [tag_all, delete_all])
    def test_stopped_work_leaves_whole_batches(
        self,
        resources: Resources,
        work: Callable[[Resources], Iterator[bulk.Step]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A store that fails within a batch leaves nothing of that batch; the work done again does the rest."""
        record_models(resources, 5)
        write, written = Store.write_manifest, []

        def break_later(store: Store, name: str, document: dict[str, object]) -> None:
            written.append(name)
            if len(written) == 4:
                raise StoreUnavailable("The disk is full.")
            write(store, name, document)

        with monkeypatch.context() as broken:
            broken.setattr(Store, "write_manifest", break_later)
            with pytest.raises(StoreUnavailable, match="disk is full"):
                list(work(resources))
        assert sum(step.changed for step in work(resources)) == 3
        assert sum(step.changed for step in work(resources)) == 0

    def test_what_has_lost_its_bytes_stays_in_the_trash(self, resources: Resources) -> None:
        """Of a batch only that comes back whose bytes are there; the rest is named."""
        models = record_models(resources, 2)
        list(delete_all(resources))
        with resources.store.sweep() as sweep:
            sweep.remove(models[0].digest, unused_since=models[0].created_at.replace(year=9999))
        (step,) = bulk.restore(resources, in_batches(resources, trash=True), actor="bo")
        assert (2, 1, (models[0],)) == (step.matched, step.changed, step.gone)
        assert [models[0].id] == [one.artifact_id for one in list_deletions(resources.database)]

    def test_survey_changes_nothing(self, resources: Resources) -> None:
        """A look at what is chosen counts it, and what of it would change, with bytes and the first of it."""
        models = record_models(resources, 7)
        wanted = {"site": "A"}
        list(bulk.tag(resources, [models[:1]], wanted, by="ana"))
        found = bulk.survey(
            in_batches(resources), needed=lambda batch: bulk.untagged(resources.database, batch, wanted)
        )
        assert (7, 6, 6 * len("model 0")) == (found.matched, found.count, found.bytes)
        assert (tuple(models[1 : 1 + bulk.SHOWN]), models[0].id) == (found.first, found.newest)
        record_models(resources, 1)
        again = bulk.find_artifacts(resources.database, MODELS, newest=found.newest, size=2)
        assert models == [one for batch in again for one in batch]
        nothing = bulk.survey(in_batches(resources, "kind = 'plot'"))
        assert (nothing.matched, nothing.count, nothing.bytes, nothing.first, nothing.newest) == (0, 0, 0, (), None)

    def test_refuses(self, resources: Resources) -> None:
        """A wrong filter, a tag that cannot be, and a deletion without a reason change nothing."""
        (model,) = record_models(resources, 1)
        with pytest.raises(InvalidFilter):
            list(in_batches(resources, " "))
        for tags in ({"a b": "A"}, {"site": "A" * 300}):
            with pytest.raises(LineageError):
                list(bulk.tag(resources, in_batches(resources), tags, by="ana"))
        with pytest.raises(UpkeepError, match="reason"):
            list(bulk.delete(resources, in_batches(resources), actor="ana", reason=" "))
        assert list_deletions(resources.database) == []
        assert {model.id: {}} == load_tags(resources.database, [model.id])
        assert history(resources.database, model.id) == []
