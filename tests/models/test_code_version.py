"""Which code ran: commit, uncommitted changes, source file, packages."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from chapkit_flows.models.code import read_code_version
from chapkit_flows.models.definition import Definition
from chapkit_flows.refs import CodeVersion, digest_of


def git(folder: Path, *arguments: str) -> str:
    names = {
        f"GIT_{role}_{part}": "tester@example.org" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")
    }
    environment = os.environ | names | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit: a model in a sub-folder, and another file."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.py").write_text("one\n")
    (tmp_path / "other.txt").write_text("one\n")
    (tmp_path / ".gitignore").write_text("*.csv\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def read(folder: Path) -> CodeVersion:
    return read_code_version(Definition(file=folder / "models/model.py", namespace={}))


def test_clean_commit(repository: Path) -> None:
    """In a clean repository the commit says it all."""
    found = read(repository)
    assert (git(repository, "rev-parse", "HEAD"), False, None) == (found.git_commit, found.dirty, found.patch_digest)
    assert digest_of(b"one\n") == found.source_digest


def test_python_and_packages(repository: Path) -> None:
    """The interpreter and every installed distribution are named."""
    found = read(repository)
    assert platform.python_version() == found.python
    assert (version("prefect"), version("pandas")) == (found.packages["prefect"], found.packages["pandas"])


def test_equal_code_has_equal_digests(repository: Path) -> None:
    """Reading twice gives one version."""
    assert read(repository) == read(repository)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "models/model.py").write_text("two\n"),
        lambda folder: (folder / "other.txt").write_text("two\n"),
        lambda folder: (folder / "other.txt").write_bytes(b"\0\1"),
        lambda folder: (folder / "other.txt").unlink(),
        lambda folder: (folder / "other.txt").chmod(0o755),
        lambda folder: (folder / "new.txt").write_text("new\n"),
        lambda folder: (folder / "models/nouveau é.txt").write_text("new\n"),
        lambda folder: ((folder / "new.txt").write_text("new\n"), git(folder, "add", "new.txt")),
    ],
    ids=["model", "other", "binary", "deleted", "mode", "untracked", "untracked beside the model", "staged"],
)
def test_changes_make_it_dirty(repository: Path, change: object) -> None:
    """Each kind of uncommitted change sets the flag and gives a patch digest, on the same commit."""
    clean = read(repository)
    assert callable(change)
    change(repository)
    dirty = read(repository)
    assert (clean.git_commit, True) == (dirty.git_commit, dirty.dirty)
    assert dirty.patch_digest is not None
    assert clean.digest != dirty.digest


@pytest.mark.parametrize("name", ["models/model.py", "new.txt", "models/nouveau é.txt"])
def test_patch_digest_follows_the_content(repository: Path, name: str) -> None:
    """Other changes give another patch digest, of tracked and of untracked files; the same again gives the same."""
    digests = []
    for text in ("two\n", "three\n", "two\n"):
        (repository / name).write_text(text)
        digests.append(read(repository).patch_digest)
    assert digests[0] == digests[2] != digests[1]


def test_untracked_names_count(repository: Path) -> None:
    """Two untracked files with swapped contents are another patch."""
    digests = []
    for first, second in (("x", "y"), ("y", "x")):
        (repository / "a.txt").write_text(first)
        (repository / "b.txt").write_text(second)
        digests.append(read(repository).patch_digest)
    assert digests[0] != digests[1]


def test_ignored_files_do_not_count(repository: Path) -> None:
    """What .gitignore names is no change."""
    (repository / "models/data.csv").write_text("x")
    assert not read(repository).dirty


def test_configuration_of_git_does_not_count(repository: Path) -> None:
    """The patch digest is of the changes, not of how this user likes to see them."""
    (repository / "other.txt").write_text("two\n")
    plain = read(repository).patch_digest
    for key, value in (
        ("diff.noprefix", "true"),
        ("color.ui", "always"),
        ("diff.external", "echo"),
        ("diff.context", "9"),
    ):
        git(repository, "config", key, value)
    assert plain == read(repository).patch_digest


def test_outside_git(tmp_path: Path) -> None:
    """Outside a repository there is the source digest, and no commit."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.py").write_text("one\n")
    found = read(tmp_path)
    assert (None, False, None) == (found.git_commit, found.dirty, found.patch_digest)
    assert digest_of(b"one\n") == found.source_digest


def test_repository_without_a_commit(tmp_path: Path) -> None:
    """A repository in which nothing was committed yet has no commit to name."""
    (tmp_path / "models").mkdir()
    git(tmp_path, "init", "--quiet")
    assert read(tmp_path).git_commit is None


def test_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where git is not installed there is no commit, and no error."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert read(repository).git_commit is None


def test_interactive_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that stands in no file has no source digest."""
    monkeypatch.chdir(tmp_path)
    assert read_code_version(Definition(file=None, namespace={})).source_digest is None
