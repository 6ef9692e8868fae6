"""Folders: what is kept, what is refused on the way in, and what is never extracted."""

from __future__ import annotations

import io
import os
import socket
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.artifacts.trees import get_tree, list_tree, put_tree, zip_tree
from chapkit_flows.errors import ArtifactError, DigestMismatch, ObjectMissing, UnsafeTree
from chapkit_flows.refs import canonical_json, digest_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "artifacts"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def put_forged(store: Store, *paths: str, digest: str | None = None, **changes: Any) -> str:
    """The digest of a list of files that no put_tree made."""
    digest = digest or store.put(io.BytesIO(b"x")).digest
    files = [{"path": path, "digest": digest, "size": 1, "executable": False} for path in paths]
    document = {"format": 1, "files": files, "empty_folders": []} | changes
    return store.put(io.BytesIO(canonical_json(document))).digest


UNSAFE = [
    ["/etc/passwd"],
    ["../x"],
    ["a/../../x"],
    ["a/.."],
    ["."],
    ["./a"],
    [""],
    ["a//b"],
    ["a/"],
    ["a\\b"],
    ["C:/x"],
    ["c:x"],
    ["a\x00b"],
    ["a\nb"],
    ["README", "readme"],
    ["a/x", "A/y"],
    ["a", "a/b"],
    ["a", "a"],
    ["straße", "STRASSE"],
    [unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")],
]


@pytest.mark.parametrize("paths", UNSAFE, ids=ascii)
def test_unsafe_paths_are_never_extracted(store: Store, tmp_path: Path, paths: list[str]) -> None:
    """A tree with a path that leaves the folder, or two that are one on some disks, writes nothing at all."""
    digest = put_forged(store, "fine", *paths)
    with pytest.raises(UnsafeTree):
        get_tree(store, digest, tmp_path / "target")
    with pytest.raises(UnsafeTree):
        list_tree(store, digest)
    with pytest.raises(UnsafeTree):
        zip_tree(store, digest, io.BytesIO())
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("path", ["../x", "/x", "a", "a/b"])
def test_unsafe_empty_folders_are_never_extracted(store: Store, tmp_path: Path, path: str) -> None:
    """An empty folder's path is checked like that of a file."""
    digest = put_forged(store, "a", empty_folders=[path])
    with pytest.raises(UnsafeTree):
        get_tree(store, digest, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("limits", [{"max_entries": 1}, {"max_bytes": 1}])
def test_limits(store: Store, tmp_path: Path, limits: dict[str, int]) -> None:
    """A tree beyond a limit is refused before anything is written."""
    with pytest.raises(UnsafeTree, match="beyond the limits"):
        get_tree(store, put_forged(store, "a", "b"), tmp_path / "target", **limits)
    assert not (tmp_path / "target").exists()


def test_tree_that_lies_about_sizes(store: Store, tmp_path: Path) -> None:
    """A file that is larger than its tree says, thus beyond what was checked, is refused."""
    digest = put_forged(store, "a", digest=store.put(io.BytesIO(b"much more")).digest)
    with pytest.raises(UnsafeTree, match="'a'"):
        get_tree(store, digest, tmp_path / "target")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b'{"format":1,"files":[1]}', b'{"format":1,"files":[{"path":1}]}', b'{"format":2}'],
)
def test_object_that_is_no_tree(store: Store, content: bytes) -> None:
    """Bytes that are no list of files of this format are an error that names the object."""
    digest = store.put(io.BytesIO(content)).digest
    with pytest.raises(UnsafeTree, match=digest):
        list_tree(store, digest)


def test_tree_is_canonical(store: Store, source: Path) -> None:
    """The list of files is canonical JSON, and holds neither times nor owners."""
    (source / "b").write_bytes(b"x")
    (source / "a").write_bytes(b"")
    tree = put_tree(store, source)
    os.utime(source / "b", (1, 1))
    assert tree == put_tree(store, source)
    files = [
        {"path": path, "digest": digest_of(content), "size": len(content), "executable": False}
        for path, content in [("a", b""), ("b", b"x")]
    ]
    with store.open(tree.digest) as file:
        assert canonical_json({"format": 1, "files": files, "empty_folders": []}) == file.read()


def test_empty_folder(store: Store, source: Path, tmp_path: Path) -> None:
    """A folder without files comes back."""
    get_tree(store, put_tree(store, source).digest, tmp_path / "target")
    assert (tmp_path / "target").is_dir()


def test_links_inside_are_stored_as_what_they_lead_to(store: Store, source: Path, tmp_path: Path) -> None:
    """Links to files and folders inside come back as files and folders."""
    (source / "runs").mkdir()
    (source / "runs" / "1.txt").write_text("one")
    (source / "file").symlink_to("runs/1.txt")
    (source / "latest").symlink_to("runs")
    get_tree(store, put_tree(store, source).digest, tmp_path / "target")
    assert "one" == (tmp_path / "target" / "latest" / "1.txt").read_text()
    assert "one" == (tmp_path / "target" / "file").read_text()
    assert not any(path.is_symlink() for path in (tmp_path / "target").rglob("*"))


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "../secret", "missing", "loop", ".", "sub/.."])
def test_links_that_are_refused(store: Store, source: Path, target: str) -> None:
    """A link that leaves the folder, leads nowhere or in a circle is an error that names it."""
    (source / "sub").mkdir()
    (source.parent / "secret").write_text("secret")
    (source / "loop").symlink_to(target)
    with pytest.raises(UnsafeTree, match="loop"):
        put_tree(store, source)


def test_socket_is_refused(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket in the folder is an error that names it."""
    monkeypatch.chdir(source)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("service.sock")
        with pytest.raises(UnsafeTree, match=r"service\.sock"):
            put_tree(store, source)


def test_pipe_is_refused(store: Store, source: Path) -> None:
    """A named pipe is an error, and nobody waits for its other end."""
    os.mkfifo(source / "pipe")
    with pytest.raises(UnsafeTree, match="pipe"):
        put_tree(store, source)


@pytest.mark.parametrize("names", [["README", "readme"], ["a\\b"], [b"\xff".decode("utf-8", "surrogateescape")]])
def test_names_that_could_not_be_extracted_are_not_stored(store: Store, source: Path, names: list[str]) -> None:
    """A folder is refused while it still exists, rather than when it is needed again."""
    for name in names:
        (source / name).touch()
    if len(names) != len(list(source.iterdir())):
        pytest.skip("this disk does not tell the names apart")
    with pytest.raises(UnsafeTree):
        put_tree(store, source)


def test_folder_that_is_absent(store: Store, tmp_path: Path) -> None:
    """A folder that does not exist is an error that names it."""
    with pytest.raises(ArtifactError, match="no folder"):
        put_tree(store, tmp_path / "absent")


def test_target_that_is_not_empty(store: Store, source: Path, tmp_path: Path) -> None:
    """Nothing is restored over existing files."""
    (source / "a").write_text("stored")
    tree = put_tree(store, source)
    (source / "a").write_text("mine")
    with pytest.raises(ArtifactError, match="not empty"):
        get_tree(store, tree.digest, source)
    assert "mine" == (source / "a").read_text()


def test_target_that_cannot_be_made(store: Store, source: Path, tmp_path: Path) -> None:
    """A target below a file is an error that names the target."""
    (source / "a").write_text("stored")
    tree = put_tree(store, source)
    with pytest.raises(ArtifactError, match="cannot be restored"):
        get_tree(store, tree.digest, source / "a" / "target")


def test_missing_and_damaged_files(store: Store, source: Path, tmp_path: Path) -> None:
    """A tree whose file is gone or damaged is not restored silently."""
    (source / "a").write_text("stored")
    tree = put_tree(store, source)
    digest = digest_of(b"stored")
    path = Path(store.url) / "objects" / "sha256" / digest[7:9] / digest[9:]
    path.unlink()
    with pytest.raises(ObjectMissing, match=digest):
        get_tree(store, tree.digest, tmp_path / "one")
    path.write_text("sto\0ed")
    with pytest.raises(DigestMismatch, match=digest):
        get_tree(store, tree.digest, tmp_path / "two")


def test_zip(store: Store, source: Path) -> None:
    """A zip holds the files, modes and empty folders, and is the same each time, also into a pipe."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError("a pipe has no position")

    (source / "empty").mkdir()
    (source / "run.sh").write_text("exit 0\n")
    (source / "run.sh").chmod(0o755)
    (source / "größe.txt").write_text("é" * 1000)
    tree = put_tree(store, source)
    first, second, piped = io.BytesIO(), io.BytesIO(), Pipe()
    for sink in (first, second, piped):
        zip_tree(store, tree.digest, sink)
    assert first.getvalue() == second.getvalue()
    for content in (first, io.BytesIO(piped.getvalue())):
        with zipfile.ZipFile(content) as archive:
            assert ["empty/", "größe.txt", "run.sh"] == archive.namelist()
            assert "é" * 1000 == archive.read("größe.txt").decode()
            assert 0o100755 == archive.getinfo("run.sh").external_attr >> 16


names = st.text(st.characters(codec="utf-8", exclude_characters='/\\:"<>|?*\x7f', exclude_categories=["C"]), min_size=1)
paths = st.lists(
    names.filter(lambda name: name not in (".", "..") and len(name.encode()) < 100), min_size=1, max_size=3
)


def fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.lists(
        st.tuples(paths.map("/".join), st.binary(max_size=100), st.booleans()),
        max_size=6,
        unique_by=lambda file: fold(file[0].split("/")[0]),
    )
)
def test_any_folder_comes_back(tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[str, bytes, bool]]) -> None:
    """Names (in Unicode form NFC), bytes and executable bits of any folder come back."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "source").mkdir()
    for path, content, executable in wanted:
        file = folder / "source" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if executable else 0o644)
    store = open_store(str(folder / "artifacts"))
    get_tree(store, put_tree(store, folder / "source").digest, folder / "target")
    expected = {(unicodedata.normalize("NFC", path), content, executable) for path, content, executable in wanted}
    assert expected == {
        (path.relative_to(folder / "target").as_posix(), path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in (folder / "target").rglob("*")
        if path.is_file()
    }
