"""A disk that is full, and one that turns read-only, by a small file system of its own."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.artifacts.trees import get_tree, put_tree
from chapkit_flows.errors import ArtifactError, StoreUnavailable
from chapkit_flows.testing.stores import some_bytes

KEPT = some_bytes(1000)
LARGE = some_bytes(3 << 20)


def mount(*arguments: object) -> bool:
    return 0 == subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", folder):
        pytest.skip("only root may mount a small file system, and not in every container")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.bin").write_bytes(LARGE[number : number + (700 << 10)])
    return folder


@pytest.fixture
def store(disk: Path) -> Store:
    """A store that holds an object and a document."""
    store = open_store(str(disk / "artifacts"))
    store.put(io.BytesIO(KEPT))
    store.write_manifest("runs/01A", {"n": 1})
    return store


def put_objects(store: Store, source: Path) -> None:
    store.put(io.BytesIO(LARGE))


def put_document(store: Store, source: Path) -> None:
    store.write_manifest("runs/01A", {"n": 2, "text": "n" * (3 << 20)})


def put_folder(store: Store, source: Path) -> None:
    put_tree(store, source)


WORKS = [put_objects, put_document, put_folder]


def assert_whole(store: Store) -> None:
    """What was there is there, every object is what its name says, and nothing unfinished is left."""
    assert {"n": 1} == store.read_manifest("runs/01A")
    for key in store._backend.keys("objects"):
        with store.open("sha256:" + "".join(key.split("/")[-2:])):
            pass
    assert [] == store._backend.keys("tmp")


@pytest.mark.parametrize("work", WORKS)
def test_full_disk(disk: Path, store: Store, source: Path, work: Callable[[Store, Path], None]) -> None:
    """On a full disk the error says so, the store stays whole, and once there is room a rerun completes."""
    with pytest.raises(StoreUnavailable, match=r"no space left.*Free some"):
        work(store, source)
    assert_whole(store)
    assert mount("-o", "remount,size=32m", disk)
    work(store, source)
    if work is put_document:
        assert 2 == store.read_manifest("runs/01A")["n"]
    else:
        assert_whole(store)


@pytest.mark.parametrize("work", WORKS)
def test_read_only_disk(disk: Path, store: Store, source: Path, work: Callable[[Store, Path], None]) -> None:
    """On a read-only disk writing is an error that says so, reading works, and a rerun completes later."""
    assert mount("-o", "remount,ro,size=32m", disk)
    with pytest.raises(StoreUnavailable, match=r"cannot be written: .*read-only"):
        work(store, source)
    assert_whole(store)
    assert mount("-o", "remount,rw", disk)
    work(store, source)


def test_disk_that_fills_up_on_the_way_out(tmp_path: Path, disk: Path, source: Path) -> None:
    """A folder that does not fit where it is restored is an error that names the place; the store is not blamed."""
    store = open_store(str(tmp_path / "artifacts"))
    tree = put_tree(store, source)
    with pytest.raises(ArtifactError, match=f"cannot be restored into {disk / 'target'}: No space left"):
        get_tree(store, tree.digest, disk / "target")
    get_tree(store, tree.digest, tmp_path / "target")
    assert 4 == len(list((tmp_path / "target").iterdir()))
