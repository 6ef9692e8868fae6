"""The folder in which a model's commands run."""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chapkit_flows.errors import InvalidModel

# What a project folder holds beside the model: never copied, and so never stored.
EXCLUDED = (
    # version control, environments, caches, build products
    ".git", ".hg", ".svn", ".venv*", "venv", "env", "renv", "node_modules", "__pycache__", "*.py[co]", "*.egg-info",
    ".*_cache", ".ipynb_checkpoints", ".cache", ".tox", ".nox", ".idea", ".vscode", ".DS_Store", ".Rproj.user",
    ".Rhistory", "build", "dist",
    # secrets
    ".env", ".env.*", "*.env", ".envrc", ".netrc", ".pgpass", ".Renviron", ".aws", ".azure", ".config", ".docker",
    ".gnupg", ".kube", ".prefect", ".ssh", ".git-credentials", ".npmrc", ".pypirc", "*.pem", "*.key", "*.p12", "*.pfx",
    "id_rsa*", "id_ed25519*", "*credentials*", "secrets*", "*.secret", "service-account*", "service_account*",
    "token", "token.*", "*.token",
    # databases
    "*.db", "*.db-*", "*.mdb", "*.accdb", "*.sqlite", "*.sqlite-*", "*.sqlite3", "*.sqlite3-*", "*.duckdb",
)  # fmt: skip
# A folder that holds one of these is an environment or a cache, whatever its name.
MARKERS = ("pyvenv.cfg", "conda-meta", "CACHEDIR.TAG")
# So is a folder in which this package keeps its bytes and facts.
STORES = ("lineage.db", "objects/sha256")
MAX_FILES = 10_000
MAX_BYTES = 2 * 1024**3


@dataclass(frozen=True, kw_only=True)
class Project:
    """The project of a model that is run by commands: its declared files, and how long a command may take.

    Attributes:
        folder: Where they are.
        include: Patterns of the paths to take, relative to `folder`; `*` also matches `/`.
        exclude: Patterns of names or paths to leave out, beside those that are always left out:
            version control, environments, caches, secrets such as `.env`, and databases.
        timeout_seconds: A command that runs longer is stopped; None for the limit in the settings (6 hours).
    """

    folder: Path
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    timeout_seconds: float | None = None

    def files(self) -> Iterator[Path]:
        """The declared files, relative to `folder`, in order.

        Raises:
            InvalidModel: The folder cannot be read, or holds too many or too large files to be one model's project.
        """
        count = total = 0
        for path in self._walk(self.folder):
            relative = path.relative_to(self.folder)
            if not any(fnmatch.fnmatchcase(relative.as_posix(), pattern) for pattern in self.include):
                continue
            count, total = count + 1, total + path.stat().st_size
            if count > MAX_FILES or total > MAX_BYTES:
                raise InvalidModel(
                    f"The project folder {self.folder} holds more than {MAX_FILES} files or 2 GiB. Name the files "
                    'that the commands need: ShellModelRunner(..., project=Project(folder=..., include=["*.R"])).'
                )
            yield relative

    def copy_to(self, folder: Path) -> None:
        """Copy the declared files, with their permissions."""
        for relative in self.files():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.folder / relative, target)

    def _walk(self, folder: Path) -> Iterator[Path]:
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise InvalidModel(f"The project folder {folder} cannot be read: {error.strerror}.") from error
        for path in paths:
            if self._excluded(path):
                continue
            if path.is_dir() and not path.is_symlink():
                yield from self._walk(path)
            # A link is taken as the file it names, unless that lies outside the project.
            elif path.is_file() and path.resolve().is_relative_to(self.folder.resolve()):
                yield path

    def _excluded(self, path: Path) -> bool:
        if any(fnmatch.fnmatchcase(path.name.lower(), pattern.lower()) for pattern in EXCLUDED):
            return True
        if any((path / marker).exists() for marker in (*MARKERS, *STORES)):
            return True
        relative = path.relative_to(self.folder).as_posix()
        return any(fnmatch.fnmatchcase(path.name, p) or fnmatch.fnmatchcase(relative, p) for p in self.exclude)


class Scratch:
    """A temporary folder that goes away with the last reference to it."""

    def __init__(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="chapkit-flows-", ignore_cleanup_errors=True)
        self.path = Path(directory.name)
        # Left to itself the directory would warn that nobody cleaned it up; here that is what is meant to happen.
        weakref.finalize(self, directory.cleanup)


@dataclass(frozen=True, kw_only=True, eq=False)
class Workspace(os.PathLike[str]):
    """A temporary folder with what a command read and wrote. It goes away with the last reference to it.

    Attributes:
        exit_code: Of the command that ran in it; None before.
        stdout: The last lines of its output; all of it is in the folder below `.run/`.
        stderr: The last lines of its error output.
    """

    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    scratch: Scratch = field(default_factory=Scratch, repr=False)

    @property
    def path(self) -> Path:
        """The folder."""
        return self.scratch.path

    def __fspath__(self) -> str:
        return str(self.scratch.path)

    def facts(self) -> dict[str, Any]:
        """What the artifact's metadata says about the command."""
        return {"exit_code": self.exit_code, "stdout": self.stdout, "stderr": self.stderr}
