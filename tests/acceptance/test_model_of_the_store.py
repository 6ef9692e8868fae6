"""The store against a dictionary: any sequence of writing, reading, failing and crashing."""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.artifacts.trees import get_tree, list_tree, put_tree
from chapkit_flows.errors import DigestMismatch, ObjectMissing
from chapkit_flows.refs import digest_of
from chapkit_flows.testing.stores import key_of, plant

contents = st.one_of(st.binary(max_size=40), st.integers(0, 3).map(lambda n: bytes([n]) * 70_000))
file_names = st.sampled_from(["a", "b", "sub/a", "sub/b", "other/größe.csv"])
document_names = st.from_regex(r"[A-Za-z0-9_-]{1,8}(/[A-Za-z0-9_-]{1,8}){0,2}", fullmatch=True)
documents = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=20), max_size=4)


class Crash(BaseException):
    """The process dies here."""


class StoreMachine(RuleBasedStateMachine):
    """What is put stays, whatever else happens; what was lost or damaged is said, and heals when put again."""

    digests = Bundle("digests")
    trees = Bundle("trees")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="chapkit-flows-model-"))
        self.store: Store = open_store(str(self.folder / "artifacts"))
        self.objects: dict[str, bytes] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        self.folders = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def new_folder(self) -> Path:
        self.folders += 1
        return self.folder / f"folder-{self.folders}"

    def remember(self, content: bytes) -> str:
        self.objects[digest_of(content)] = content
        return digest_of(content)

    @rule(target=digests, content=contents)
    def put(self, content: bytes) -> str:
        stored = self.store.put(io.BytesIO(content))
        assert (self.remember(content), len(content)) == (stored.digest, stored.size)
        return stored.digest

    @rule(digest=digests)
    def read(self, digest: str) -> None:
        with self.store.open(digest) as file:
            assert self.objects[digest] == file.read()

    @rule(content=contents, written=st.integers(0, 70_000))
    def crash_while_writing(self, content: bytes, written: int) -> None:
        with suppress(Crash), self.store.writer() as sink:
            sink.write(content[:written])
            raise Crash
        plant(self.store, f"tmp/{self.folders}-{written}.part", content[:written])
        self.reopen()

    @rule(digest=digests, fault=st.sampled_from(["flipped", "shorter", "longer", "lost"]))
    def damage_and_heal(self, digest: str, fault: str) -> None:
        content = self.objects[digest]
        damaged = {"flipped": bytes([content[0] ^ 1]) + content[1:] if content else b"x", "shorter": content[:-1]}
        path = Path(self.store.url) / key_of(digest)
        path.unlink()
        if fault != "lost" and content:
            plant(self.store, key_of(digest), damaged.get(fault, content + b"x"))
        with pytest.raises((ObjectMissing, DigestMismatch)), self.store.open(digest):
            raise AssertionError("the reader must not run")
        self.store.put(io.BytesIO(content))
        self.read(digest)

    @rule(target=trees, files=st.dictionaries(file_names, contents, max_size=4))
    def put_tree(self, files: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
        folder = self.new_folder()
        folder.mkdir()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            self.remember(content)
        tree = put_tree(self.store, folder)
        with self.store.open(tree.digest) as file:
            self.remember(file.read())
        assert (len(files), sum(map(len, files.values()))) == (tree.files, tree.size)
        return tree.digest, files

    @rule(tree=trees)
    def get_tree(self, tree: tuple[str, dict[str, bytes]]) -> None:
        digest, files = tree
        folder = self.new_folder()
        get_tree(self.store, digest, folder)
        assert files == {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        assert sorted(files) == [entry.path for entry in list_tree(self.store, digest)]

    @rule(name=document_names, document=documents)
    def write_document(self, name: str, document: dict[str, Any]) -> None:
        self.store.write_manifest(name, document)
        self.documents[name] = document

    @rule()
    def reopen(self) -> None:
        self.store = open_store(str(self.folder / "artifacts"))

    @invariant()
    def nothing_is_lost_and_nothing_is_there_beside(self) -> None:
        assert sorted(map(key_of, self.objects)) == self.store._backend.keys("objects")
        assert sorted(self.documents) == sorted(self.store.manifest_names())
        assert all(document == self.store.read_manifest(name) for name, document in self.documents.items())


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@settings(max_examples=60, deadline=None)
@given(name=document_names, document=documents)
def test_any_document_comes_back(name: str, document: dict[str, Any]) -> None:
    """Any legal name and any JSON object come back as they were."""
    store = open_store("memory://any-document")
    store.write_manifest(name, document)
    assert document == store.read_manifest(name)
    assert name in store.manifest_names()
