"""The store on a local disk: crashes, full and read-only disks, URLs and the format."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chapkit_flows.artifacts.backends import mask_url
from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.errors import ArtifactError, DigestMismatch, ObjectMissing, StoreUnavailable
from chapkit_flows.refs import digest_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(str(root))


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_layout_is_the_documented_one(store: Store, root: Path) -> None:
    """Objects, documents and the format lie where the docstring of the module says."""
    digest = store.put(io.BytesIO(b"abc")).digest
    store.write_manifest("runs/01A", {"b": 1, "a": None})
    expected = ["format.json", "manifests/runs/01A.json", f"objects/sha256/{digest[7:9]}/{digest[9:]}"]
    assert expected == files_below(root)
    assert {"format": 1} == json.loads((root / "format.json").read_text())
    assert b'{"a":null,"b":1}' == (root / "manifests/runs/01A.json").read_bytes()


def test_opening_and_reading_create_nothing(store: Store, root: Path) -> None:
    """A store that was only looked at leaves no trace."""
    store.check()
    assert not store.has(digest_of(b"abc"))
    assert [] == store.manifest_names()
    assert not root.exists()


def test_stored_object_is_not_rewritten(store: Store, root: Path) -> None:
    """Putting bytes that are there keeps the file and removes the temporary one."""
    digest = store.put(io.BytesIO(b"abc")).digest
    path = root / "objects" / "sha256" / digest[7:9] / digest[9:]
    before = path.stat().st_ino
    store.put(io.BytesIO(b"abc"))
    assert before == path.stat().st_ino
    assert [] == list((root / "tmp").iterdir())


@pytest.mark.parametrize("place", [0, 1 << 20, (3 << 20) - 1])
def test_flipped_bit_is_healed_by_putting_again(store: Store, root: Path, place: int) -> None:
    """A damaged object of the right size is replaced when its bytes are put again."""
    content = bytes(3 << 20)
    digest = store.put(io.BytesIO(content)).digest
    path = root / "objects" / "sha256" / digest[7:9] / digest[9:]
    path.unlink()
    path.write_bytes(content[:place] + b"\1" + content[place + 1 :])
    with pytest.raises(DigestMismatch), store.open(digest):
        pass
    store.put(io.BytesIO(content))
    with store.open(digest) as file:
        assert content == file.read()


def test_objects_are_protected_against_writing(store: Store, root: Path) -> None:
    """No user has write permission on an object."""
    digest = store.put(io.BytesIO(b"abc")).digest
    assert 0 == (root / "objects" / "sha256" / digest[7:9] / digest[9:]).stat().st_mode & 0o222


def test_killed_writer_leaves_no_object(store: Store, root: Path) -> None:
    """After kill -9 in the middle of a put there is no object, and the next put works."""
    code = """
import sys
from chapkit_flows.artifacts.store import open_store
with open_store(sys.argv[1]).writer() as sink:
    sink.write(bytes(3 << 20))
    sink.flush()
    print("written", flush=True)
    sys.stdin.read()
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        assert "written\n" == writer.stdout.readline()
        left = list((root / "tmp").iterdir())
        writer.send_signal(signal.SIGKILL)
    assert -signal.SIGKILL == writer.returncode
    assert [3 << 20] == [path.stat().st_size for path in left]
    assert not (root / "objects").exists()
    digest = store.put(io.BytesIO(bytes(3 << 20))).digest
    with store.open(digest) as file:
        assert bytes(3 << 20) == file.read()


def test_disk_that_fills_up(root: Path) -> None:
    """A write beyond what the disk takes is an error with a remedy; no object and no temporary file stay."""
    code = """
import io, resource, sys
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.errors import StoreUnavailable
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    open_store(sys.argv[1]).put(io.BytesIO(bytes(3 << 20)))
except StoreUnavailable as error:
    print(error)
"""
    finished = run_python(code, str(root))
    assert "" == finished.stderr
    assert str(root) in finished.stdout
    assert "set another storage URL" in finished.stdout
    assert ["format.json"] == files_below(root)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_left(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel says that the disk is full, the message says that there is no space left."""
    full = os.open("/dev/full", os.O_WRONLY)
    opened = os.open

    def open_full(path: object, flags: int, *rest: int, **named: int) -> int:
        return os.dup(full) if str(path).endswith(".part") else opened(path, flags, *rest, **named)  # type: ignore[call-overload]

    store.check()
    monkeypatch.setattr("chapkit_flows.artifacts.backends.os.open", open_full)
    try:
        with pytest.raises(StoreUnavailable, match="no space left") as caught:
            store.put(io.BytesIO(b"abc"))
    finally:
        os.close(full)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("action", ["put", "manifest"])
def test_file_in_place_of_the_folder(root: Path, action: str) -> None:
    """A store whose place is taken by a file is an error that names it, for writing as for reading."""
    root.write_text("in the way")
    store = open_store(str(root))
    with pytest.raises(StoreUnavailable, match="A file lies where a folder is needed") as caught:
        store.put(io.BytesIO(b"abc")) if action == "put" else store.write_manifest("a", {})
    assert str(root) in str(caught.value)


def test_read_only_disk() -> None:
    """A disk that is mounted read-only is an error that says so."""
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        open_store("/proc/chapkit-flows").put(io.BytesIO(b"abc"))


def test_error_of_the_reader_is_left_alone(store: Store) -> None:
    """An OSError of the code that reads an object is not taken for one of the store."""
    digest = store.put(io.BytesIO(b"abc")).digest
    with pytest.raises(FileNotFoundError), store.open(digest):
        raise FileNotFoundError("of the caller")


def test_error_of_the_source_is_left_alone(store: Store) -> None:
    """An OSError of what is being stored is not taken for one of the store."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError("of the source")

    with pytest.raises(ConnectionResetError, match="of the source"):
        store.put(Broken())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x",
        "ftp://host/x",
        "s3a://bucket",
        "simplecache::s3://bucket",
        "github://a:b@/",
        "s3:/bucket",
    ],
)
def test_scheme_that_is_not_allowed(url: str) -> None:
    """A URL of another scheme is refused, with the schemes that are allowed."""
    with pytest.raises(StoreUnavailable, match="s3://"):
        open_store(url)


def test_file_url_is_a_path(root: Path) -> None:
    """A file:// URL and the path it names are the same store."""
    digest = open_store(root.as_uri()).put(io.BytesIO(b"abc")).digest
    assert open_store(str(root)).has(digest)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sftp://me:secret@host/x", "sftp://me:***@host/x"),
        ("sftp://me:se/cr@et@host/x", "sftp://me:***@host/x"),
        ("sftp://me@host/x", "sftp://me@host/x"),
        ("s3://bucket/x", "s3://bucket/x"),
    ],
)
def test_password_is_masked(url: str, expected: str) -> None:
    """The password of a URL is never shown."""
    assert expected == mask_url(url)


@pytest.mark.parametrize("found", [2, "1", None])
def test_newer_format(store: Store, root: Path, found: object) -> None:
    """A store that a newer version wrote is neither read nor written."""
    digest = store.put(io.BytesIO(b"abc")).digest
    (root / "format.json").unlink()
    (root / "format.json").write_text(json.dumps({"format": found}))
    newer = open_store(str(root))
    with pytest.raises(StoreUnavailable, match="Upgrade chapkit-flows"):
        newer.put(io.BytesIO(b"new"))
    with pytest.raises(StoreUnavailable, match="Upgrade chapkit-flows"), newer.open(digest):
        pytest.fail("the reader must not run")


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/../b", ".hidden", "a/.b", "a b", "a\\b", "a/"])
def test_name_of_a_manifest(store: Store, name: str) -> None:
    """A name that could leave the folder of manifests is refused."""
    with pytest.raises(ArtifactError, match="no name for a manifest"):
        store.write_manifest(name, {})


@pytest.mark.parametrize("content", [b"", b'{"a":', b"[]", b"\xff"])
def test_damaged_manifest(store: Store, root: Path, content: bytes) -> None:
    """A document that is no JSON object any more is an error that names it."""
    store.write_manifest("a", {})
    (root / "manifests/a.json").unlink()
    (root / "manifests/a.json").write_bytes(content)
    with pytest.raises(DigestMismatch, match=r"manifests/a\.json"):
        store.read_manifest("a")


def test_moved_store_is_still_readable(store: Store, root: Path) -> None:
    """Nothing in a store depends on where it lies."""
    digest = store.put(io.BytesIO(b"abc")).digest
    moved = root.rename(root.with_name("moved"))
    with open_store(str(moved)).open(digest) as file:
        assert b"abc" == file.read()
    with pytest.raises(ObjectMissing), store.open(digest):
        pass


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.binary(max_size=300_000), max_size=5))
def test_any_pieces_come_back(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    """However bytes arrive, they come back under the digest of all of them."""
    store = open_store(str(tmp_path_factory.mktemp("any")))
    with store.writer() as sink:
        for piece in pieces:
            sink.write(piece)
    assert digest_of(b"".join(pieces)) == sink.stored.digest
    with store.open(sink.stored.digest) as file:
        assert b"".join(pieces) == file.read()
