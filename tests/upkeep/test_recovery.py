"""A database that is lost, made again from what each run has left beside its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from command_line import model, write_tables
from worlds import World

from chapkit_flows import Resources, load_model, open_resources
from chapkit_flows.artifacts.store import Store
from chapkit_flows.configs.versions import config_version
from chapkit_flows.errors import ChapkitFlowsError
from chapkit_flows.flows.config_history import record_config
from chapkit_flows.lineage import record
from chapkit_flows.lineage.annotations import history, load_tags
from chapkit_flows.lineage.assignments import Decision
from chapkit_flows.lineage.configs import config_history
from chapkit_flows.lineage.deletions import in_trash, record_deletions
from chapkit_flows.lineage.dump import dump
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.facts import Deletion, NewEntry
from chapkit_flows.lineage.query import list_artifacts
from chapkit_flows.lineage.registry import assignments, scan_versions
from chapkit_flows.refs import new_id, now
from chapkit_flows.registry import promote, register
from chapkit_flows.testing.facts import make_run
from chapkit_flows.upkeep.annotations import add_note, remove_tags, set_tags
from chapkit_flows.upkeep.recovery import rebuild
from chapkit_flows.upkeep.rehearsal import rehearse
from chapkit_flows.upkeep.trash import delete, restore


class Interrupted:
    """A store in which somebody else does something just before a manifest is written."""

    def __init__(self, store: Store, work: Callable[[], object]) -> None:
        self.store = store
        self.work: Callable[[], object] | None = work

    def reach(self) -> None:
        self.store.reach()

    def manifest_names(self, folder: str) -> list[str]:
        return self.store.manifest_names(folder)

    def write_manifest(self, name: str, document: Mapping[str, Any]) -> None:
        work, self.work = self.work, None
        if work is not None:
            work()
        self.store.write_manifest(name, document)


def rebuilt(resources: Resources, folder: Path) -> tuple[Resources, list[str]]:
    """A new database made from the manifests, and what it holds."""
    database = open_database(f"sqlite:///{folder / 'rebuilt.db'}")
    made = Resources(store=resources.store, database=database)
    rebuild(made)
    return made, list(dump(database))


def test_lineage_of_real_runs_is_the_same(
    server: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After trainings, predictions, failures and a failed command every row comes back as it was."""
    tables = {name: str(path) for name, path in write_tables(tmp_path / "data").items()}
    mean, shell = load_model(model("mean")), load_model(model("shell"))
    saved = mean.config(samples=4)
    saved.save("recovered")
    trained = mean.train(saved, tables["training"], tables["geo"])
    saved.samples = 5
    saved.save("recovered", overwrite=True)
    mean.train(saved, tables["training"])
    record_config(open_resources(), config_version(saved), NewEntry(origin="apply", author="ana", note="as in May"))
    mean.predict(trained.artifact_id, tables["historic"], tables["future"])
    commanded = shell.train(shell.config(), tables["training"])
    shell.predict(commanded.artifact_id, tables["historic"], tables["future"])
    for fault in ("train raises", "train returns None"):
        monkeypatch.setenv("FAULT", fault)
        with pytest.raises(ChapkitFlowsError):
            mean.train(mean.config(), tables["training"])
    with pytest.raises(ChapkitFlowsError):
        mean.train(mean.config(), str(tmp_path / "absent.csv"))
    resources = open_resources()
    delete(resources, [trained.artifact_id, commanded.artifact_id], actor="ana", reason="x")
    restore(resources, [trained.artifact_id], actor="bo")
    set_tags(resources, trained.artifact_id, {"site": "A", "year": "2020"}, by="ana")
    remove_tags(resources, trained.artifact_id, ["year"], by="bo")
    add_note(resources, trained.run_id, "before the floods", by="ana")
    version = register(resources, trained.artifact_id, by="ana")
    decision = Decision(actor="ana", reason="the first", evidence={"crps": 12.5})
    promote(resources, version, alias="champion", expected=None, decision=decision)
    made, lines = rebuilt(resources, tmp_path)
    assert sorted(dump(resources.database)) == sorted(lines)
    again = rebuild(made)
    assert (0, 0, 0) == (again.annotations, again.configs, again.registrations)
    history = config_history(made.database, saved.get_block_type_slug(), "recovered")
    assert [(1, "run"), (2, "run"), (2, "apply")] == [(entry.number, entry.origin) for entry in history]


def test_retried_run_is_the_same(server: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two attempts of one flow run left is one run in the manifests too."""
    tables = write_tables(tmp_path / "data")
    monkeypatch.setenv("FAULT", "train raises")
    mean = load_model(model("mean"))
    flow = mean.train.with_options(retries=1)
    with pytest.raises(ChapkitFlowsError):
        flow(mean.config(), str(tables["training"]))
    resources = open_resources()
    _, lines = rebuilt(resources, tmp_path)
    assert sorted(dump(resources.database)) == sorted(lines)


def test_rebuild_can_be_run_again(world: World, tmp_path: Path) -> None:
    """A rebuild adds what is missing only."""
    world.train(b"table", a=b"1")
    again, lines = rebuilt(world.resources, tmp_path)
    assert sorted(dump(world.resources.database)) == sorted(lines)
    assert (0, 0) == (rebuild(again).runs, rebuild(again).deletions)
    assert lines == list(dump(again.database))


def test_many_runs_come_back(world: World, tmp_path: Path) -> None:
    """More runs than are read at once come back."""
    for number in range(230):
        world.train(str(number % 7).encode(), a=str(number).encode())
    _, lines = rebuilt(world.resources, tmp_path)
    assert sorted(dump(world.resources.database)) == sorted(lines)


def test_data_that_came_back_by_itself(world: World, tmp_path: Path) -> None:
    """Data that was deleted and read again is out of the trash after a rebuild too."""
    data = world.train(b"table", a=b"1").inputs[0].artifact
    delete(world.resources, [data.id], actor="ana", reason="x")
    world.train(b"table", a=b"2")
    world.train(b"table", a=b"3")
    _, lines = rebuilt(world.resources, tmp_path)
    assert sorted(dump(world.resources.database)) == sorted(lines)


def test_data_that_a_dead_run_brought_in_first(world: World, tmp_path: Path) -> None:
    """A run that died just before its record does not keep a later run's data from its tags and its deletion."""
    data, made = world.put(b"table"), world.put_folder({"a": b"1"})
    store = world.resources.store
    dead = World(folder=tmp_path, resources=Resources(store=store, database=open_database("sqlite://")))
    dead.record(data, made)
    later = world.train(b"table", a=b"1").inputs[0].artifact
    assert data.id != later.id
    set_tags(world.resources, later.id, {"site": "A"}, by="ana")
    delete(world.resources, [later.id], actor="ana", reason="x")
    other = Resources(store=store, database=open_database(f"sqlite:///{tmp_path / 'rebuilt.db'}"))
    found = rebuild(other)
    assert (2, 1, 1, ()) == (found.runs, found.deletions, found.annotations, found.findings)
    (same,) = list_artifacts(other.database, digest=data.digest)
    assert {"site": "A"} == load_tags(other.database, [same.id])[same.id]
    assert "ana" == in_trash(other.database, {same.id})[same.id].actor
    assert 0 == rebuild(other).annotations


def test_deletion_of_nothing_is_named(world: World, tmp_path: Path) -> None:
    """A deletion of an artifact that no run has left is a finding, and the rest is recorded."""
    run = world.train(b"1", a=b"1")
    delete(world.resources, [run.output("model").id], actor="ana", reason="x")
    lost = world.train(b"2", a=b"2")
    delete(world.resources, [lost.output("model").id], actor="ana", reason="x")
    (world.folder / f"artifacts/manifests/runs/{lost.id}.json").unlink()
    other = Resources(store=world.resources.store, database=open_database(f"sqlite:///{tmp_path / 'rebuilt.db'}"))
    found = rebuild(other)
    assert (1, 1, ["manifest_unreadable"]) == (found.runs, found.deletions, [one.code for one in found.findings])


def test_unreadable_manifests_are_named(world: World, tmp_path: Path) -> None:
    """A manifest that cannot be read is a finding, and the others are read."""
    first, second = world.train(b"1", a=b"1"), world.train(b"2", a=b"2")
    runs = world.folder / "artifacts/manifests/runs"
    for run, content in ((first, "{half"), (second, json.dumps({"id": second.id}))):
        path = runs / f"{run.id}.json"
        path.chmod(0o644)
        path.write_text(content)
    third = world.train(b"3", a=b"3")
    database = open_database(f"sqlite:///{tmp_path / 'rebuilt.db'}")
    found = rebuild(Resources(store=world.resources.store, database=database))
    assert 1 == found.runs
    assert {f"runs/{first.id}", f"runs/{second.id}"} == {one.field for one in found.findings}
    assert {"manifest_unreadable"} == {one.code for one in found.findings}
    assert third.id not in str(found.findings)


def test_rehearsal_passes(world: World, tmp_path: Path) -> None:
    """On a whole store each step of the rehearsal passes, and nothing of the original is changed."""
    run = world.train(b"table", a=b"1", b=b"2")
    record.start(world.resources.database, make_run())
    delete(world.resources, [run.output("model").id], actor="ana", reason="x")
    world.say_all(world.train(b"table", a=b"3"))
    before, objects = list(dump(world.resources.database)), world.objects()
    acts = rehearse(world.resources, tmp_path / "scratch")
    assert ["backup", "restore", "rebuild", "compare", "check"] == [act.name for act in acts]
    assert all(act.passed for act in acts), acts
    assert (before, objects) == (list(dump(world.resources.database)), world.objects())


def test_two_writers_of_one_registry(world: World, tmp_path: Path) -> None:
    """What is registered while another registration writes its manifest is in the manifests too."""
    first, second = (world.train(b"table", a=name.encode()).output("model").id for name in ("first", "second"))
    store = world.resources.store
    paused = Interrupted(store, lambda: register(world.resources, second, by="bo"))
    register(replace(world.resources, store=cast(Store, paused)), first, by="ana")
    _, lines = rebuilt(world.resources, tmp_path)
    assert sorted(dump(world.resources.database)) == sorted(lines)


def test_two_writers_of_one_history(world: World, tmp_path: Path) -> None:
    """What is said of a run while another writer writes what was said before is in the manifests too."""
    run = world.train()
    with ThreadPoolExecutor(1) as pool:
        second = partial(
            pool.submit, add_note, world.resources, run.id, "the second", by="bo"
        )  # it waits for the first
        paused = Interrupted(world.resources.store, second)
        add_note(replace(world.resources, store=cast(Store, paused)), run.id, "the first", by="ana")
    assert ["the first", "the second"] == [said.text for said in history(world.resources.database, run.id)]
    _, lines = rebuilt(world.resources, tmp_path)
    assert sorted(dump(world.resources.database)) == sorted(lines)


def test_registry_that_was_begun_again(world: World, tmp_path: Path) -> None:
    """Versions registered after the database was lost, and before it was rebuilt, cost none of those before."""
    runs = [world.train(b"table", a=str(number).encode()) for number in range(2)]
    before = [register(world.resources, run.output("model").id, by="ana") for run in runs]
    decision = Decision(actor="ana", reason="the best")
    promote(world.resources, before[1], alias="champion", expected=None, decision=decision)
    lost = Resources(store=world.resources.store, database=open_database(f"sqlite:///{tmp_path / 'new.db'}"))
    later = World(folder=world.folder, resources=lost).train(b"table", a=b"later")
    promote(lost, register(lost, later.output("model").id, by="bo"), alias="champion", expected=None, decision=decision)
    found = rebuild(lost)
    assert ((), 3) == (found.findings, found.registrations)
    assert [run.output("model").id for run in (*runs, later)] == [
        version.artifact_id for version in scan_versions(lost.database, later.model)
    ]
    assert [1, 2, 3] == [version.number for version in scan_versions(lost.database, later.model)]
    assert [2, 3] == [change.number for change in assignments(lost.database, later.model, alias="champion")]
    assert 0 == rebuild(lost).registrations
    again, _ = rebuilt(lost, tmp_path)
    assert assignments(lost.database, later.model) == assignments(again.database, later.model)
    assert scan_versions(lost.database, later.model) == scan_versions(again.database, later.model)


def test_rehearsal_finds_what_would_be_lost(world: World, tmp_path: Path) -> None:
    """A lost manifest, a lost object and a deletion without manifest make it fail, and it says where."""
    run, other = world.train(b"table", a=b"1"), world.train(b"other", a=b"2")
    (world.folder / f"artifacts/manifests/runs/{run.id}.json").unlink()
    world.path_of(other.inputs[0].artifact.digest).unlink()
    deletion = Deletion(
        id=new_id(),
        artifact_id=other.output("model").id,
        actor="ana",
        reason="x",
        deleted_at=now() - timedelta(days=1),
    )
    record_deletions(world.resources.database, [deletion])
    acts = {act.name: act for act in rehearse(world.resources, tmp_path / "scratch")}
    assert {"backup", "compare", "check"} == {name for name, act in acts.items() if not act.passed}
    assert other.inputs[0].artifact.digest in acts["backup"].detail
    assert "lineage_run: 1 rows differ" in acts["compare"].detail
    assert "lineage_deletion: 1 rows differ" in acts["compare"].detail
