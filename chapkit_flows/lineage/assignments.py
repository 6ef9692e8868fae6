"""Frozen values of the registry: model versions, and changes of the aliases that point to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from chapkit_flows.lineage.documents import read_value
from chapkit_flows.refs import new_id

AliasAction = Literal["set", "remove", "promote", "rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A trained model, registered under its model's name.

    Attributes:
        number: From 1, in the order of registration.
        artifact_id: Of the trained model.
        digest: Of its bytes.
    """

    model: str
    number: int
    artifact_id: str
    digest: str
    registered_at: datetime
    registered_by: str
    note: str = ""
    id: str = field(default_factory=new_id)

    @property
    def name(self) -> str:
        """As one writes it: `rain@3`."""
        return f"{self.model}@{self.number}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; times as ISO 8601."""
        return asdict(self) | {"registered_at": self.registered_at.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who changes an alias, and why.

    Attributes:
        evidence: What the gate of a promotion saw, as JSON values.
    """

    actor: str
    reason: str
    evidence: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One change of an alias.

    Attributes:
        sequence: From 1, per alias of a model, without gaps.
        number: Of the version that the alias points to from then on; None for nothing.
        previous: The number before.
        evidence: What the gate of a promotion saw, as JSON values.
    """

    model: str
    alias: str
    sequence: int
    action: AliasAction
    number: int | None
    previous: int | None
    actor: str
    reason: str
    evidence: Mapping[str, Any] | None
    moment: datetime
    id: str = field(default_factory=new_id)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; times as ISO 8601."""
        return asdict(self) | {"moment": self.moment.isoformat()}


def version_from_dict(document: Mapping[str, Any]) -> ModelVersion:
    """The version that `ModelVersion.to_dict` wrote.

    Raises:
        LineageError: It is no such document.
    """
    return read_value(ModelVersion, document, "model version", moments=["registered_at"])


def assignment_from_dict(document: Mapping[str, Any]) -> Assignment:
    """The change that `Assignment.to_dict` wrote.

    Raises:
        LineageError: It is no such document.
    """
    return read_value(Assignment, document, "change of an alias", moments=["moment"])
