"""The contract of an artifact store, as tests that any backend can be put through.

Subclass `StoreContract` and define a fixture `store` that returns an empty, open store:

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self):
            return open_store("myscheme://…")
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from chapkit_flows.artifacts.backends import SMALL, Progress, RemoteBackend
from chapkit_flows.artifacts.codecs import load, save
from chapkit_flows.artifacts.store import CHUNK, Store
from chapkit_flows.artifacts.trees import get_tree, list_tree, put_tree
from chapkit_flows.artifacts.watching import watched_by
from chapkit_flows.errors import DigestMismatch, ObjectMissing
from chapkit_flows.refs import ArtifactRef, digest_of, new_id

ABSENT = "sha256:" + "0" * 64


def some_bytes(size: int) -> bytes:
    """The same pseudo-random bytes each time."""
    return hashlib.shake_128(b"chapkit-flows").digest(size)


def plant(store: Store, key: str, content: bytes) -> None:
    """Put bytes under a key behind the store's back, as a fault would."""
    backend = store._backend
    with backend.spool() as spooled:
        spooled.write(content)
        backend.publish(spooled, key, overwrite=True)


def key_of(digest: str) -> str:
    """Where the layout of the store keeps an object."""
    return f"objects/sha256/{digest[7:9]}/{digest[9:]}"


class BrokenSource(io.RawIOBase):
    """Gives some bytes, then fails."""

    def __init__(self) -> None:
        self._left = [b"begin"]

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if not self._left:
            raise RuntimeError("the source broke")
        return self._left.pop()


class StoreContract:
    """What every store must do."""

    @pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 11 * CHUNK + 3])
    def test_bytes_come_back(self, store: Store, size: int) -> None:
        """Any number of bytes comes back as it was put, under the SHA-256 of the bytes."""
        content = some_bytes(size)
        stored = store.put(io.BytesIO(content))
        assert (digest_of(content), size) == (stored.digest, stored.size)
        with store.open(stored.digest) as file:
            assert content == file.read()

    def test_opened_object_is_seekable(self, store: Store) -> None:
        """A reader may jump within an object and read into its own buffer."""
        stored = store.put(io.BytesIO(b"0123456789"))
        buffer = bytearray(3)
        with store.open(stored.digest) as file:
            file.seek(-4, io.SEEK_END)
            cast(io.BufferedReader, file).readinto(buffer)
            assert bytes(buffer) == b"678"
            file.seek(0)
            assert file.read() == b"0123456789"

    @pytest.mark.parametrize("size", [5, 9 * CHUNK])
    def test_progress_counts_every_byte(self, store: Store, size: int) -> None:
        """Whoever asks is told of each byte that is checked and downloaded, once."""
        digest = store.put(io.BytesIO(some_bytes(size))).digest
        told: dict[str, int] = {}
        with store.open(digest, progress=lambda what, count: told.update({what: told.get(what, 0) + count})):
            pass
        assert size == told.pop("check")
        assert told in ({}, {"download": size})

    @pytest.mark.parametrize("size", [5, 9 * CHUNK])
    def test_watcher_of_uploads_counts_every_byte(self, store: Store, tmp_path: Path, size: int) -> None:
        """Whoever watches is told of each byte that is stored and uploaded, once, from whatever thread."""
        told: dict[str, int] = {}

        @contextmanager
        def watch() -> Iterator[Progress]:
            yield lambda what, count: told.update({what: told.get(what, 0) + count})

        source = tmp_path / "source"
        source.mkdir()
        (source / "file").write_bytes(some_bytes(size))
        with watched_by(watch):
            store.put(io.BytesIO(some_bytes(size)[::-1]))
            assert size == told["store"]
            in_parts = isinstance(store._backend, RemoteBackend) and size > SMALL
            assert told.get("upload") == (size if in_parts else None)
            put_tree(store, source)
        assert told["store"] > 2 * size  # and the list of files

    def test_same_bytes_are_one_object(self, store: Store) -> None:
        """Bytes that are put twice are stored once."""
        first = store.put(io.BytesIO(b"same"))
        second = store.put(io.BytesIO(b"same"))
        assert first == second
        assert [key_of(first.digest)] == store._backend.keys("objects")

    def test_object_that_is_absent(self, store: Store) -> None:
        """A missing object is an error that names its digest and the store."""
        assert not store.has(ABSENT)
        with pytest.raises(ObjectMissing) as caught, store.open(ABSENT):
            pass
        assert ABSENT in str(caught.value)
        assert store.url in str(caught.value)

    @pytest.mark.parametrize("digest", ["", "sha256:abc", "sha256:../../../etc/passwd", "md5:" + "0" * 32])
    def test_text_that_is_no_digest(self, store: Store, digest: str) -> None:
        """A text that is no digest never becomes a path."""
        with pytest.raises(ObjectMissing), store.open(digest):
            pass

    @pytest.mark.parametrize("size", [5, 9 * CHUNK])
    @pytest.mark.parametrize("fault", ["flipped bit", "truncated", "emptied", "longer"])
    def test_damaged_object_is_never_data(self, store: Store, size: int, fault: str) -> None:
        """Damaged bytes are an error that names the digest, before the reader sees any of them."""
        content = some_bytes(size)
        digest = store.put(io.BytesIO(content)).digest
        flipped = bytearray(content)
        flipped[size // 2] ^= 1
        faults = {"flipped bit": bytes(flipped), "truncated": content[:-1], "emptied": b"", "longer": content + b"x"}
        plant(store, key_of(digest), faults[fault])
        with pytest.raises(DigestMismatch) as caught, store.open(digest):
            pytest.fail("the reader must not run")
        assert digest in str(caught.value)

    def test_truncated_object_is_healed_by_putting_it_again(self, store: Store) -> None:
        """An object of the wrong size does not keep its bytes from being stored."""
        digest = store.put(io.BytesIO(b"whole")).digest
        plant(store, key_of(digest), b"who")
        store.put(io.BytesIO(b"whole"))
        with store.open(digest) as file:
            assert file.read() == b"whole"

    def test_truncated_file_of_a_folder_is_healed(self, store: Store, tmp_path: Path) -> None:
        """Storing a folder again puts right what has the wrong size: a file of it, and the list of its files."""
        source, target = tmp_path / "source", tmp_path / "target"
        source.mkdir()
        (source / "model").write_bytes(b"whole")
        tree = put_tree(store, source)
        for digest in (tree.digest, digest_of(b"whole")):
            plant(store, key_of(digest), b"who")
        assert tree == put_tree(store, source)
        get_tree(store, tree.digest, target)
        assert (target / "model").read_bytes() == b"whole"

    def test_damage_that_is_set_aside_is_healed(self, store: Store, tmp_path: Path) -> None:
        """A file with a flipped bit is stored again once it is out of the way; its bytes are kept elsewhere."""
        source = tmp_path / "source"
        source.mkdir()
        (source / "model").write_bytes(b"whole")
        tree = put_tree(store, source)
        digest = digest_of(b"whole")
        plant(store, key_of(digest), b"wholf")
        for _ in range(2):
            store.set_aside(digest)
            assert not store.has(digest)
        assert store._backend.keys("damaged") == [f"damaged/{digest[7:]}"]
        assert tree == put_tree(store, source)
        with store.open(digest) as file:
            assert file.read() == b"whole"

    def test_source_that_fails_leaves_nothing(self, store: Store) -> None:
        """An error of the source reaches the caller and leaves no object."""
        with pytest.raises(RuntimeError, match="the source broke"):
            store.put(cast(BinaryIO, BrokenSource()))
        assert store._backend.keys("objects") == []
        assert store._backend.keys("tmp") == []

    def test_unfinished_write_is_no_object(self, store: Store) -> None:
        """What a dead process left in tmp/ disturbs neither reading nor writing."""
        plant(store, "tmp/dead.part", b"half of som")
        stored = store.put(io.BytesIO(b"half of something"))
        assert [key_of(stored.digest)] == store._backend.keys("objects")

    def test_writer_gives_the_object_after_the_block(self, store: Store) -> None:
        """Code that writes piece by piece makes the same object as code that is read."""
        content = some_bytes(3 * CHUNK + 7)
        with store.writer() as sink:
            for start in range(0, len(content), 100_000):
                sink.write(content[start : start + 100_000])
        assert digest_of(content) == sink.stored.digest
        assert len(content) == sink.stored.size
        assert store.has(sink.stored.digest)

    def test_threads_put_the_same_bytes(self, store: Store) -> None:
        """Many writers of the same bytes make one whole object."""
        content = some_bytes(2 * CHUNK)
        with ThreadPoolExecutor(8) as pool:
            stored = list(pool.map(lambda _: store.put(io.BytesIO(content)), range(16)))
        assert {digest_of(content)} == {one.digest for one in stored}
        assert [key_of(stored[0].digest)] == store._backend.keys("objects")
        with store.open(stored[0].digest) as file:
            assert content == file.read()

    def test_manifests_come_back_and_are_replaced(self, store: Store) -> None:
        """A document is read as written, the last one of a name counts, and names are listed in order."""
        assert store.manifest_names() == []
        store.write_manifest("runs/01B", {"n": 1, "text": "déjà vu"})
        store.write_manifest("artifacts/01A", {})
        store.write_manifest("runs/01B", {"n": 2})
        assert store.read_manifest("runs/01B") == {"n": 2}
        assert store.manifest_names() == ["artifacts/01A", "runs/01B"]
        assert store.manifest_names("runs") == ["runs/01B"]

    def test_readers_see_whole_manifests_only(self, store: Store) -> None:
        """While a document is replaced over and over, each reader sees one of its states, whole."""
        states = [{"n": number, "text": str(number) * 5000} for number in range(2)]
        store.write_manifest("busy", states[0])
        with ThreadPoolExecutor(4) as pool:
            writing = [pool.submit(store.write_manifest, "busy", states[number % 2]) for number in range(20)]
            reading = [pool.submit(store.read_manifest, "busy") for _ in range(20)]
            assert all(future.result() in states for future in reading)
            assert all(future.result() is None for future in writing)

    def test_manifest_that_is_absent(self, store: Store) -> None:
        """A missing document is an error that names it."""
        with pytest.raises(ObjectMissing, match="runs/01B"):
            store.read_manifest("runs/01B")

    def test_folder_comes_back(self, store: Store, tmp_path: Path) -> None:
        """A folder comes back with its names, bytes, executable bits and empty folders."""
        source, target = tmp_path / "source", tmp_path / "target"
        (source / "sub" / "empty").mkdir(parents=True)
        (source / "run.sh").write_text("exit 0\n")
        (source / "run.sh").chmod(0o755)
        (source / "sub" / "Größe.csv").write_bytes(some_bytes(2 * CHUNK + 1))
        (source / "none").touch()
        tree = put_tree(store, source)
        get_tree(store, tree.digest, target)
        assert (tree.files, tree.size) == (3, 2 * CHUNK + 8)
        assert [entry.path for entry in list_tree(store, tree.digest)] == ["none", "run.sh", "sub/Größe.csv"]
        assert some_bytes(2 * CHUNK + 1) == (target / "sub" / "Größe.csv").read_bytes()
        assert (target / "sub" / "empty").is_dir()
        assert [bool((target / name).stat().st_mode & 0o100) for name in ("run.sh", "none")] == [True, False]

    def test_unchanged_folder_adds_nothing(self, store: Store, tmp_path: Path) -> None:
        """Storing a folder again after one change adds that file and the list of files only."""
        source = tmp_path / "source"
        source.mkdir()
        for number in range(5):
            (source / f"{number}.txt").write_text(str(number))
        first = put_tree(store, source)
        before = store._backend.keys("objects")
        assert first == put_tree(store, source)
        assert before == store._backend.keys("objects")
        (source / "3.txt").write_text("changed")
        assert first.digest != put_tree(store, source).digest
        assert len(before) + 2 == len(store._backend.keys("objects"))

    def test_value_comes_back(self, store: Store) -> None:
        """A value that has no codec of its own is pickled."""
        value = {"coefficients": [1.0, 2.0], ("a", 1): b"x"}
        saved = save(store, value)
        ref = ArtifactRef(
            id=new_id(),
            kind="training_workspace",
            digest=saved.digest,
            size=saved.size,
            media_type=saved.media_type,
            codec=saved.codec,
        )
        assert value == load(store, ref)
