"""Checking rows against bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from worlds import World

from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.refs import digest_of
from chapkit_flows.upkeep.integrity import Scope, check

Fault = Callable[[World, RunFact], object]


def test_finds_nothing_in_a_whole_store(world: World) -> None:
    """Every artifact is checked, and nothing is found."""
    world.train(a=b"1")
    world.train(b"other", a=b"1", b=b"2")
    checked = list(check(world.resources, Scope(read_bytes=True)))
    assert 4 == len(checked)
    assert [] == [found for one in checked for found in one.findings]


@pytest.mark.parametrize(
    ("fault", "code", "cheap"),
    [
        (lambda world, run: world.path_of(run.inputs[0].artifact.digest).unlink(), "object_missing", True),
        (lambda world, run: world.path_of(run.output("model").digest).unlink(), "object_missing", True),
        (lambda world, run: world.damage(run.inputs[0].artifact.digest), "object_damaged", False),
        (lambda world, run: world.damage(run.output("model").digest), "folder_damaged", True),
        (lambda world, run: world.damage(world.put(b"1").digest), "object_damaged", False),
        (lambda world, run: world.path_of(world.put(b"1").digest).unlink(), "object_missing", True),
    ],
    ids=["data gone", "list gone", "data damaged", "list damaged", "file damaged", "file gone"],
)
def test_finds_faults(world: World, fault: Fault, code: str, cheap: bool) -> None:
    """A missing object is found by looking, a damaged one by reading; the finding names artifact and digest."""
    run = world.train(b"table", a=b"1")
    fault(world, run)
    for read_bytes in (False, True):
        checked = list(check(world.resources, Scope(read_bytes=read_bytes)))
        found = [(one.artifact.id, found) for one in checked for found in one.findings]
        assert [code] * (cheap or read_bytes) == [finding.code for _, finding in found]
        assert all(owner == finding.field for owner, finding in found)
        assert all("sha256:" in finding.message for _, finding in found)


@pytest.mark.parametrize("name", ["list", "file", "data"])
def test_sets_damage_aside(world: World, name: str) -> None:
    """Damage that is moved out of the way is told of, and healed by whatever stores the same bytes again."""
    run = world.train(b"table", a=b"1")
    model = run.output("model").digest
    digest = {"list": model, "file": digest_of(b"1"), "data": run.inputs[0].artifact.digest}[name]
    world.damage(digest)
    checked = check(world.resources, Scope(read_bytes=True, set_aside=True))
    (finding,) = [found for one in checked for found in one.findings]
    assert f"were moved to damaged/{digest[7:]}" in finding.message
    assert "object_missing" in world.faults()
    world.train(b"table", a=b"1")
    assert [] == world.faults()


def test_finds_wrong_size(world: World) -> None:
    """A truncated object is found without reading it."""
    run = world.train(b"table")
    path = world.path_of(run.inputs[0].artifact.digest)
    path.chmod(0o644)
    path.write_bytes(b"tab")
    (finding,) = [found for one in check(world.resources, Scope()) for found in one.findings]
    assert "wrong_size" == finding.code
    assert "3 bytes, not 5" in finding.message


def test_warns_of_a_missing_manifest(world: World) -> None:
    """An artifact that could not be rebuilt without the database is a warning."""
    run = world.train()
    (world.folder / "artifacts/manifests/artifacts" / f"{run.inputs[0].artifact.id}.json").unlink()
    (finding,) = [found for one in check(world.resources, Scope()) for found in one.findings]
    assert ("warning", "manifest_missing") == (finding.severity, finding.code)


def test_goes_on_where_it_stopped(world: World) -> None:
    """A check that is stopped can be resumed after the last artifact."""
    for number in range(3):
        world.train(str(number).encode(), a=str(number).encode())
    every = [one.artifact.id for one in check(world.resources, Scope())]
    running = check(world.resources, Scope())
    first = [next(running).artifact.id for _ in range(2)]
    rest = [one.artifact.id for one in check(world.resources, Scope(after=first[-1]))]
    assert every == first + rest


def test_sample_is_a_share(world: World) -> None:
    """A sample checks about the share that was asked for, the same with the same seed."""
    for number in range(30):
        world.train(str(number).encode(), a=str(number).encode())
    samples = [[one.artifact.id for one in check(world.resources, Scope(share=0.5, seed=seed))] for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
    assert 15 < len(samples[0]) < 45
