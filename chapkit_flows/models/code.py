"""Which code runs: commit, local changes, source file, packages."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path

from chapkit_flows.models.definition import Definition
from chapkit_flows.refs import CodeVersion, canonical_json, digest_of

_GIT_SECONDS = 30
# The patch must be the same whatever the user's own git configuration makes of it.
_DIFF = "diff HEAD --binary --no-ext-diff --no-textconv --no-color --no-renames -U3 --src-prefix=a/ --dst-prefix=b/"


def read_code_version(definition: Definition) -> CodeVersion:
    """Describe the code of a model as it is on disk now. Read it once, soon after the model is imported."""
    folder = definition.folder
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=all") if commit else None
    source = definition.file
    version = CodeVersion(
        digest="",
        git_commit=commit.decode().strip() if commit else None,
        dirty=bool(changes),
        patch_digest=_patch_digest(folder) if changes else None,
        source_digest=digest_of(source.read_bytes()) if source and source.is_file() else None,
        python=platform.python_version(),
        packages=_packages(),
    )
    facts = asdict(version)
    return CodeVersion(**(facts | {"digest": digest_of(canonical_json(facts))}))


def _packages() -> dict[str, str]:
    return dict(sorted({dist.name.lower(): dist.version for dist in distributions() if dist.name}.items()))


def _patch_digest(folder: Path) -> str:
    """Of the uncommitted changes of tracked files, and of the names and contents of untracked files."""
    patch = hashlib.sha256(_git(folder, *_DIFF.split()) or b"")
    top = Path((_git(folder, "rev-parse", "--show-toplevel") or b".").decode().strip())
    for name in (_git(top, "ls-files", "--others", "--exclude-standard", "-z") or b"").split(b"\0"):
        file = top / name.decode(errors="surrogateescape")
        if name and file.is_file():
            with file.open("rb") as content:
                patch.update(name + hashlib.file_digest(content, "sha256").digest())
    return f"sha256:{patch.hexdigest()}"


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
