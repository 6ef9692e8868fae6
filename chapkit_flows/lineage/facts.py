"""Frozen values of this room: what a run gave, what is known of a run, and the graph of lineage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from chapkit_flows.errors import LineageError
from chapkit_flows.lineage.documents import Document, read_value
from chapkit_flows.refs import ArtifactRef, CodeVersion, ConfigRef, RunRef, RunStatus, new_id, now

NodeType = Literal["run", "artifact", "config", "code"]
Action = Literal["set", "remove", "note"]
Origin = Literal["apply", "run", "restore", "use", "ui"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What a run read or wrote, and what as: `data`, `geo`, `model`, `prediction`, …"""

    role: str
    artifact: ArtifactRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Document):
    """That a run read a URI, and which dataset it brought.

    Attributes:
        id: ULID of the moment at which the bytes were fetched: readings are ordered by it.
        uri_digest: `readings.uri_digest` of the URI: what makes two URIs the same one.
        uri: For people, without secrets; of a path the absolute one.
        role: What the run read it as.
    """

    id: str = field(default_factory=new_id)
    uri_digest: str
    uri: str
    run_id: str
    role: str
    artifact_id: str
    read_at: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended and what it read and wrote.

    Attributes:
        readings: Which of the inputs came from which URI, in this and in earlier attempts.
        error: What people should know of a failure.
        finished_at: When it ended; None for the moment at which that is recorded.
        metrics: Numbers about the run by name; they may be NaN or infinite.
        artifact_metrics: The same about artifacts that it read or wrote, by the id of the artifact.
    """

    status: RunStatus
    error: str | None = None
    finished_at: datetime | None = None
    inputs: tuple[Edge, ...] = ()
    outputs: tuple[Edge, ...] = ()
    readings: tuple[Reading, ...] = ()
    config: ConfigRef | None = None
    code: CodeVersion | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifact_metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFact(RunRef, Document):
    """What the database knows of a run. Edges are ordered by role, then by artifact id; readings by id."""

    status: RunStatus
    error: str | None = None
    finished_at: datetime | None = None
    config: ConfigRef | None = None
    code: CodeVersion | None = None
    inputs: tuple[Edge, ...] = ()
    outputs: tuple[Edge, ...] = ()
    readings: tuple[Reading, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifact_metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def find_output(self, role: str) -> ArtifactRef | None:
        """What the run wrote in a role: the newest, if attempts that failed wrote others; None if nothing."""
        made = [edge.artifact for edge in self.outputs if edge.role == role]
        return made[-1] if made else None

    def output(self, role: str) -> ArtifactRef:
        """What the run wrote in a role.

        Raises:
            KeyError: Nothing.
        """
        made = self.find_output(role)
        if made is None:
            raise KeyError(role)
        return made

    def name_of(self, edge: Edge) -> str:
        """The name by which this run read or wrote something; empty if it has none.

        Equal bytes are one dataset. It knows the name under which it first came, the run the one that it read.
        """
        given = self.parameters.get(edge.role)
        read = (
            one.uri for one in reversed(self.readings) if (one.role, one.artifact_id) == (edge.role, edge.artifact.id)
        )
        uri = next(read, given)
        name = name_in(uri) if edge.artifact.kind == "dataset" else ""
        return name or str(edge.artifact.metadata.get("name") or "")


def name_in(uri: object) -> str:
    """The last part of a URI, without a query; empty if it names an artifact or is none."""
    if not isinstance(uri, str) or uri.startswith("artifact://"):
        return ""
    return uri.split("?", 1)[0].rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion(Document):
    """An artifact was put into the trash.

    Attributes:
        id: ULID.
        restored_at: When it came back from the trash.
        swept_at: When its bytes were given up: from then on they may be gone.
    """

    id: str
    artifact_id: str
    actor: str
    reason: str
    deleted_at: datetime = field(default_factory=now)
    restored_at: datetime | None = None
    restored_by: str | None = None
    swept_at: datetime | None = None


def annotation_from_dict(document: Mapping[str, Any]) -> Annotation:
    """The annotation that `Annotation.to_dict` wrote.

    Raises:
        LineageError: It is no such document.
    """
    return read_value(Annotation, document, "annotation", moments=["created_at"])


def deletion_from_dict(document: Mapping[str, Any]) -> Deletion:
    """The deletion that `Deletion.to_dict` wrote.

    Raises:
        LineageError: It is no such document.
    """
    moments = ["deleted_at", "restored_at", "swept_at"]
    return read_value(Deletion, document, "record of a deletion", moments=moments, optional=moments[1:])


def run_from_dict(document: Mapping[str, Any]) -> RunFact:
    """The run that `RunFact.to_dict` wrote.

    Raises:
        LineageError: It is no such document.
    """
    try:
        config, code, finished_at = document["config"], document["code"], document["finished_at"]
        values = dict(document) | {
            "started_at": datetime.fromisoformat(document["started_at"]),
            "finished_at": datetime.fromisoformat(finished_at) if finished_at else None,
            "config": ConfigRef(**config) if config else None,
            "code": CodeVersion(**code) if code else None,
            "inputs": tuple(map(_edge_from_dict, document["inputs"])),
            "outputs": tuple(map(_edge_from_dict, document["outputs"])),
            "readings": tuple(map(_reading_from_dict, document.get("readings", ()))),  # earlier versions wrote none
            "metrics": _read_metrics(document["metrics"]),
            # Runs that older versions recorded measured no artifacts.
            "artifact_metrics": {
                artifact_id: _read_metrics(values)
                for artifact_id, values in document.get("artifact_metrics", {}).items()
            },
        }
        return RunFact(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LineageError(f"The document is no record of a run: {error!r}. Restore it from a backup.") from error


def _read_metrics(document: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in document.items()}


def _edge_from_dict(document: Mapping[str, Any]) -> Edge:
    artifact = document["artifact"] | {"created_at": datetime.fromisoformat(document["artifact"]["created_at"])}
    return Edge(role=document["role"], artifact=ArtifactRef(**artifact))


def _reading_from_dict(document: Mapping[str, Any]) -> Reading:
    return read_value(Reading, document, "record of a reading", moments=["read_at"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation(Document):
    """What someone said of a run or an artifact after the fact.

    Attributes:
        id: ULID.
        subject_id: Of the run or the artifact.
        action: A tag was `set` or `remove`d, or a `note` was written.
        key: Of the tag; None for a note.
        text: The value of the tag, or the note; None for a removed tag.
        author: Who said it.
    """

    subject_id: str
    action: Action
    key: str | None
    text: str | None
    author: str
    created_at: datetime
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Newer:
    """Why something is stale: a URI that brought a dataset brings another one now.

    Attributes:
        dataset: The id of the one that it was made from, or that it is.
        newer: The id of the current one.
        read_at: When that was read.
    """

    uri: str
    dataset: str
    newer: str
    read_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """How a content of a named config came to be.

    Attributes:
        origin: It was brought by `apply` from a file, by `restore` of an older version, by `use` of another config; or
            it was found there: by a `run` that used it, or under `ui` by whoever was about to overwrite it.
        author: Who did it; of what was found there, who found it.
        note: What people should know.
        restored: The number of the older version that it brought back.
    """

    origin: Origin
    author: str
    note: str | None = None
    restored: int | None = None
    created_at: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEntry(NewEntry, Document):
    """A step in the history of a named config.

    Attributes:
        id: ULID.
        sequence: Counts the steps of the name from 1.
        number: Of the version, from 1: that of the step before, if the content is the same.
        digest: Of the content.
    """

    id: str
    block_type: str
    name: str
    sequence: int
    number: int
    digest: str

    @property
    def slug(self) -> str:
        """The version as it is written on the command line: `rain-config/weekly@3`."""
        return f"{self.block_type}/{self.name}@{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigHead:
    """What a name stands for by its last entry, and how many runs used a config of that name."""

    entry: ConfigEntry
    runs: int


def entry_from_dict(document: Mapping[str, Any]) -> ConfigEntry:
    """The entry that `ConfigEntry.to_dict` wrote.

    Raises:
        LineageError: It is no such document.
    """
    return read_value(ConfigEntry, document, "entry of a config's history", moments=["created_at"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One thing in the graph.

    Attributes:
        level: Of an artifact: 0 training workspace, 1 prediction, 2 prediction workspace.
        stale: Why it is stale; empty if it is current.
        id: Of a run or an artifact; the digest of a config or code version.
        label: Short text for people.
        kind: The kind of an artifact, the flow of a run, the block type of a config.
        status: Of a run or an artifact.
        digest: Of an artifact, a config or a code version.
        created_at: When the artifact was made, the run started, the config version was first used.
    """

    id: str
    type: NodeType
    label: str
    kind: str | None = None
    status: str | None = None
    digest: str | None = None
    created_at: datetime | None = None
    level: int | None = None
    stale: tuple[Newer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphEdge:
    """An arrow in the direction data flows: input artifact, config or code to run, run to output artifact.

    Attributes:
        name: By which the run read a dataset; another run may have read it by another.
    """

    source: str
    target: str
    role: str
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where a graph that was cut can be gone on with.

    Attributes:
        node: From which to walk: a run or an artifact in the graph.
        heading: `up` or `down`.
        before: The last of its neighbours that the graph has; None if it has none of them.
    """

    node: str
    heading: Literal["up", "down"]
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph(Document):
    """A part of the lineage.

    Attributes:
        nodes: The asked-for thing first, then by distance from it; config and code versions last.
        truncated: Whether the limit on nodes left something out.
        more: Where there is more, beyond the limit on nodes or the depth.
    """

    nodes: tuple[Node, ...]
    edges: tuple[GraphEdge, ...]
    truncated: bool = False
    more: tuple[Cursor, ...] = ()
