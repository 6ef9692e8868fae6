"""A store whose writer is killed at every step that changes the disk."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import kill_points
import pytest
from killed_works import STORE

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.artifacts.trees import get_tree, put_tree


def make_source(folder: Path) -> None:
    for name, content in {"a": b"one", "sub/b": b"one", "sub/c": b"two" * 100_000, "sub/empty": b""}.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def damaged(store: Store) -> list[str]:
    """The objects whose bytes are not those of their name."""
    root = Path(store.url) / "objects" / "sha256"
    objects = (path for path in root.glob("*/*") if path.is_file())
    return [str(p) for p in objects if hashlib.sha256(p.read_bytes()).hexdigest() != p.parent.name + p.name]


def manifests(store: Store) -> dict[str, object]:
    return {name: store.read_manifest(name) for name in store.manifest_names()}


def leftovers(store: Store) -> list[Path]:
    return list((Path(store.url) / "tmp").glob("*"))


def assert_same_folder(store: Store, source: Path, target: Path) -> None:
    """Store the folder again, and get it back."""
    get_tree(store, put_tree(store, source).digest, target)
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert files == {path.relative_to(target): path.read_bytes() for path in target.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("work", "least"), STORE.items())
def test_killed_at_every_step(tmp_path: Path, work: str, least: int) -> None:
    """Whenever the writer dies, what is in the store is whole, and the same work done again completes."""
    make_source(tmp_path)
    done = subprocess.run(
        [sys.executable, kill_points.__file__, work, str(tmp_path)], capture_output=True, text=True, timeout=240
    )
    assert 0 == done.returncode, done.stderr
    endings = json.loads(done.stdout)
    killed = [point for point, code in endings if code == -signal.SIGKILL]
    assert {0, -signal.SIGKILL} == {code for _, code in endings}
    assert len(killed) >= least
    assert 0 == endings[-1][1], "the last one had no step left to die at"

    for point, _ in endings:
        store = open_store(str(tmp_path / point))
        store.check()
        assert [] == damaged(store), point
        before = manifests(store)
        if work == "replaced":
            assert before["runs/01A"] in ({"state": "old"}, {"state": "new", "text": "n" * 100_000}), point
        for name, document in before.items():  # a document that names an object was written after it
            assert "digest" not in document or store.has(document["digest"]), (point, name)
        unfinished = len(leftovers(store))
        if work == "tree":
            assert_same_folder(store, tmp_path / "source", tmp_path / f"target-{point}")
        else:
            kill_points.WORKS[work](store)
        assert [] == damaged(store), point
        assert unfinished == len(leftovers(store)), point
