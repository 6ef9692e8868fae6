"""The declared files of a project: what a command's workspace holds, and what is never copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from chapkit_flows.errors import InvalidModel
from chapkit_flows.models import workspace
from chapkit_flows.models.workspace import Project

WANTED = [
    ".Rprofile",
    "MLproject",
    "R/fit.R",
    "R/deep/er/more.R",
    "data/static.csv",
    "environment.yml",
    "keyboard.R",
    "model.py",
    "prevention.py",
    "scripts/train model.py",
    "secretary.R",
    "tokens/tokenizer.jl",
]
NEVER = [
    ".git/config",
    ".hg/store",
    ".svn/entries",
    ".venv/bin/python",
    ".venv-3.11/bin/python",
    "venv/bin/python",
    "env/bin/python",
    "my-python/pyvenv.cfg",
    "my-python/bin/python",
    "conda/conda-meta/history",
    "conda/bin/R",
    "renv/library/x",
    "node_modules/x/index.js",
    "__pycache__/model.cpython-311.pyc",
    "R/__pycache__/x.pyc",
    "scripts/.ipynb_checkpoints/a.ipynb",
    ".mypy_cache/x",
    ".ruff_cache/x",
    ".pytest_cache/x",
    "warm/CACHEDIR.TAG",
    "warm/large.bin",
    ".env",
    ".env.local",
    "prod.env",
    ".envrc",
    ".netrc",
    ".pgpass",
    ".Renviron",
    ".aws/credentials",
    ".ssh/id_rsa",
    "server.pem",
    "private.key",
    "id_ed25519",
    "credentials.json",
    "Credentials.JSON",
    "secrets.toml",
    "secrets/token",
    "data/secrets.yml",
    ".prefect/profiles.toml",
    ".git-credentials",
    ".pypirc",
    ".npmrc",
    ".docker/config.json",
    "service-account.json",
    "my_credentials.json",
    "token.txt",
    "data.mdb",
    "home/lineage.db",
    "home/artifacts/manifests/runs/x.json",
    "store/objects/sha256/ab/cd",
    "store/format.json",
    "lineage.db",
    "lineage.db-wal",
    "cache.sqlite",
    "cache.sqlite3-journal",
    "big.duckdb",
]


def make(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return folder


def names(project: Project) -> list[str]:
    return sorted(file.as_posix() for file in project.files())


def test_default_is_the_folder_without_what_is_no_part_of_the_model(tmp_path: Path) -> None:
    """Sources and static data are taken; version control, environments, caches, secrets and databases never are."""
    make(tmp_path, *WANTED, *NEVER)
    assert sorted(WANTED) == names(Project(folder=tmp_path))


def test_copy_is_the_same_files(tmp_path: Path) -> None:
    """A copy holds the declared files with their contents and permissions, and nothing else."""
    source = make(tmp_path / "source", *WANTED, *NEVER)
    (source / "R/fit.R").chmod(0o755)
    target = tmp_path / "target"
    Project(folder=source).copy_to(target)
    copied = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
    assert set(WANTED) == copied.keys()
    assert all(name == path.read_text() for name, path in copied.items())
    assert (0o755, 0) == (copied["R/fit.R"].stat().st_mode & 0o777, copied["model.py"].stat().st_mode & 0o111)


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.R"], [], ["R/deep/er/more.R", "R/fit.R", "keyboard.R", "secretary.R"]),
        (["R/*"], [], ["R/deep/er/more.R", "R/fit.R"]),
        (["model.py", "data/*"], [], ["data/static.csv", "model.py"]),
        (["*.R"], ["R"], ["keyboard.R", "secretary.R"]),
        (["*.R"], ["R/deep/*", "key*"], ["R/fit.R", "secretary.R"]),
        ([".env", "lineage.db"], [], []),
        (["nothing"], [], []),
    ],
)
def test_patterns_choose(tmp_path: Path, include: list[str], exclude: list[str], expected: list[str]) -> None:
    """Include takes paths, exclude leaves out names and paths; what is always left out cannot be included."""
    make(tmp_path, *WANTED, *NEVER)
    assert expected == names(Project(folder=tmp_path, include=include, exclude=exclude))


def test_links_are_taken_as_files_within_the_project(tmp_path: Path) -> None:
    """A link to a file of the project is taken as that file; one that leads out, or nowhere, is not."""
    project = make(tmp_path / "project", "a.txt")
    make(tmp_path, "outside.txt", "folder/x.txt")
    (project / "inside").symlink_to("a.txt")
    (project / "out").symlink_to(tmp_path / "outside.txt")
    (project / "folder").symlink_to(tmp_path / "folder")
    (project / "loop").symlink_to(".")
    (project / "dead").symlink_to("nowhere")
    target = tmp_path / "target"
    Project(folder=project).copy_to(target)
    assert ["a.txt", "inside"] == sorted(path.name for path in target.iterdir())
    assert not (target / "inside").is_symlink()


@pytest.mark.parametrize(("limit", "value"), [("MAX_FILES", 2), ("MAX_BYTES", 10)])
def test_a_home_directory_is_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """Too many or too large files are refused; the message says how to name the ones that are needed."""
    make(tmp_path, "four", "five5", "six666")
    monkeypatch.setattr(workspace, limit, value)
    with pytest.raises(InvalidModel, match=r"more than .*include="):
        Project(folder=tmp_path).copy_to(tmp_path / "target")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    """A project folder that is not there is an error of the model."""
    with pytest.raises(InvalidModel, match=f"{tmp_path / 'absent'}"):
        list(Project(folder=tmp_path / "absent").files())
