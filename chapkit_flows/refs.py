"""Frozen values that cross every border: references to things, ids and digests. No framework types."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from ulid import ULID

from chapkit_flows.errors import InvalidId

Severity = Literal["error", "warning", "info"]
Kind = Literal[
    "dataset", "training_workspace", "prediction", "prediction_workspace", "metrics", "plot", "report", "backtest"
]
RunStatus = Literal["running", "completed", "failed", "cancelled", "crashed"]

_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_id() -> str:
    """Make a ULID: 26 characters that sort by the time they were made."""
    return str(ULID())


def check_id(text: str) -> str:
    """Return the id in upper case.

    Raises:
        InvalidId: `text` is not a ULID.
    """
    upper = text.strip().upper()
    if not _ID.fullmatch(upper):
        raise InvalidId(
            f"{text!r} is not an id. Ids have 26 letters and digits, such as 01JD3Q0Z8V6Y3N5W2T7R9K4M1B; "
            "list them with: chapkit-flows artifacts list"
        )
    return upper


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


def digest_of(content: bytes) -> str:
    """The digest of some bytes: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8. Equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str).encode(
        errors="replace"  # a file name that is not UTF-8 has no JSON
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One finding of validation.

    Attributes:
        severity: An `error` stops a run before the model is called; the others are shown only.
        code: A stable name for programs, such as `missing_covariate`.
        message: A sentence for people: what is wrong, where, what to do.
        field: The input it is about, such as `data.rainfall` or `config.n_lags`.
    """

    severity: Severity
    code: str
    message: str
    field: str | None = None

    def __post_init__(self) -> None:
        if self.severity not in get_args(Severity):
            raise ValueError(f"severity is {self.severity!r}; write one of {', '.join(get_args(Severity))}")

    @classmethod
    def error(cls, code: str, message: str, field: str | None = None) -> Diagnostic:
        """A finding that stops the run."""
        return cls(severity="error", code=code, message=message, field=field)

    @classmethod
    def warning(cls, code: str, message: str, field: str | None = None) -> Diagnostic:
        """A finding to look at."""
        return cls(severity="warning", code=code, message=message, field=field)

    @classmethod
    def info(cls, code: str, message: str, field: str | None = None) -> Diagnostic:
        """A finding to know."""
        return cls(severity="info", code=code, message=message, field=field)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRef:
    """One config version: the content of a config block that a run used, named by digest.

    Attributes:
        digest: Of the canonical JSON of `block_type` and `content`.
        block_type: The slug of the block type.
        name: The block document it was read from; None when the config was built in code.
        content: The user's values by alias, as JSON; secret values masked.
    """

    digest: str
    block_type: str
    name: str | None
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeVersion:
    """Which code ran.

    Attributes:
        digest: Of all the other fields.
        git_commit: The commit of the folder that holds the model; None outside a repository.
        dirty: Whether that folder's repository had changes that are not committed.
        patch_digest: Of those changes, as `git diff HEAD` prints them, and of the untracked files.
        source_digest: Of the model's file.
        python: Version of the interpreter, such as `3.11.7`.
        packages: Version of each installed distribution.
    """

    digest: str
    git_commit: str | None
    dirty: bool
    patch_digest: str | None
    source_digest: str | None
    python: str
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRef:
    """An immutable thing that a run consumed or produced; its bytes are in the store under `digest`.

    Attributes:
        id: ULID.
        kind: What it is.
        level: Depth below the training: 0 training workspace, 1 prediction, 2 prediction workspace.
        digest: `sha256:` and 64 hexadecimal digits.
        size: Bytes, of a folder those of all its files.
        media_type: How to read the bytes.
        codec: The name of the codec that wrote them; `raw` for bytes kept as they came.
        status: `failed` marks what a failed run left for inspection.
        metadata: JSON facts, such as source URI, rows, exit code.
    """

    id: str
    kind: Kind
    digest: str
    size: int
    media_type: str
    codec: str = "raw"
    level: int | None = None
    status: Literal["ok", "failed"] = "ok"
    created_at: datetime = field(default_factory=now)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRef:
    """A dataset that was read: where from, and the artifact that keeps its bytes."""

    uri: str
    artifact: ArtifactRef


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRef:
    """One execution of a flow.

    Attributes:
        id: ULID.
        flow: `train`, `predict`, …
        model: Name of the model.
        entrypoint: Where the model is defined: `path/to/file.py:name` or `package.module:name`.
        flow_run_id: The Prefect flow run; it may be gone from the server by now.
    """

    id: str
    flow: str
    model: str
    entrypoint: str | None = None
    flow_run_id: str | None = None
    flow_run_name: str | None = None
    started_at: datetime = field(default_factory=now)
    parameters: Mapping[str, Any] = field(default_factory=dict)
