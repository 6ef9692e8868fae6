"""A store and a database with runs in them, without a Prefect server."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chapkit_flows import Resources
from chapkit_flows.artifacts.codecs import FolderCodec
from chapkit_flows.artifacts.manifests import artifact_manifest
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.artifacts.trees import MEDIA_TYPE, list_tree, put_tree
from chapkit_flows.flows.config_history import record_config
from chapkit_flows.lineage import record
from chapkit_flows.lineage.assignments import Decision
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.facts import Edge, NewEntry, Outcome, RunFact
from chapkit_flows.refs import ArtifactRef, new_id
from chapkit_flows.registry import assign, promote, register, remove_alias
from chapkit_flows.testing.facts import make_code, make_config, make_run
from chapkit_flows.upkeep.annotations import add_note, set_tags
from chapkit_flows.upkeep.integrity import Scope, check

DAY = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class World:
    """What a home folder holds, and what a user could do to it."""

    folder: Path
    resources: Resources

    @classmethod
    def make(cls, folder: Path) -> World:
        """An empty one."""
        store = open_store(str(folder / "artifacts"))
        database = open_database(f"sqlite:///{folder / 'lineage.db'}")
        return cls(folder=folder, resources=Resources(store=store, database=database))

    def put(self, content: bytes) -> ArtifactRef:
        """Store bytes as a dataset, without a row."""
        stored = self.resources.store.put(io.BytesIO(content))
        return ArtifactRef(id=new_id(), kind="dataset", digest=stored.digest, size=stored.size, media_type="text/csv")

    def put_folder(self, files: Mapping[str, bytes]) -> ArtifactRef:
        """Store files as a workspace, without a row."""
        source = self.folder / "workspaces" / new_id()
        source.mkdir(parents=True)
        for name, content in files.items():
            (source / name).write_bytes(content)
        tree = put_tree(self.resources.store, source)
        return ArtifactRef(
            id=new_id(),
            kind="training_workspace",
            level=0,
            digest=tree.digest,
            size=tree.size,
            media_type=MEDIA_TYPE,
            codec=FolderCodec.name,
        )

    def record(self, data: ArtifactRef, made: ArtifactRef) -> RunFact:
        """Record a run that read and made something, with its manifests, as the flows do."""
        return self.finish(record.start(self.resources.database, make_run()), data, made)

    def finish(self, run: RunFact, data: ArtifactRef, made: ArtifactRef) -> RunFact:
        """Record what a run read and made, with its manifests."""
        fact = record.finish(
            self.resources.database,
            run.id,
            Outcome(
                status="completed",
                inputs=(Edge(role="data", artifact=data),),
                outputs=(Edge(role="model", artifact=made),),
                config=make_config(n_lags=3),
                code=make_code(),
                metrics={"crps": 1.5},
            ),
        )
        store = self.resources.store
        for edge in (*fact.inputs, *fact.outputs):
            store.write_manifest(f"artifacts/{edge.artifact.id}", artifact_manifest(edge.artifact, run_id=fact.id))
        store.write_manifest(f"runs/{fact.id}", fact.to_dict())
        return fact

    def train(self, data: bytes = b"table", **files: bytes) -> RunFact:
        """Store and record a training."""
        return self.record(self.put(data), self.put_folder(files or {"model.json": b"{}"}))

    def say_all(self, run: RunFact) -> None:
        """Say all that can be said of a training: tags, a note, a saved config, a version, the champion, a removal."""
        record_config(self.resources, make_config(n_lags=3), NewEntry(origin="apply", author="ana", note="as in May"))
        record_config(self.resources, make_config(n_lags=4), NewEntry(origin="apply", author="bo"))
        set_tags(self.resources, run.id, {"site": "A"}, by="ana")
        add_note(self.resources, run.output("model").id, "before the floods", by="ana")
        version, why = register(self.resources, run.output("model").id, by="ana"), Decision(actor="ana", reason="x")
        promote(self.resources, version, alias="champion", expected=None, decision=why)
        assign(self.resources, version, alias="staging", decision=why)
        remove_alias(self.resources, version.model, alias="staging", decision=why)

    def age(self, days: float) -> None:
        """Let all objects, and the notes of folds and places, be older than they are."""
        moment = time.time() - days * DAY
        for folder in ("objects", "manifests/folds", "manifests/places"):
            for file in (self.folder / "artifacts" / folder).rglob("*"):
                if file.is_file():
                    os.utime(file, (moment, moment))

    def objects(self) -> set[str]:
        """The digests of all objects."""
        return {entry.digest for shard in range(256) for entry in self.resources.store.objects(shard)}

    def path_of(self, digest: str) -> Path:
        """Where an object lies."""
        return self.folder / "artifacts" / "objects" / "sha256" / digest[7:9] / digest[9:]

    def damage(self, digest: str) -> None:
        """Flip one bit of an object."""
        path = self.path_of(digest)
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)

    def faults_of(self, artifact: ArtifactRef) -> list[str]:
        """The digests that an artifact needs and the store lacks or holds damaged."""
        store = self.resources.store
        if not store.has(artifact.digest):
            return [artifact.digest]
        needed = [entry.digest for entry in list_tree(store, artifact.digest)] if artifact.codec == "folder" else []
        return [digest for digest in needed if not store.has(digest)]

    def faults(self) -> list[str]:
        """The codes of all errors that a full check finds."""
        found = check(self.resources, Scope(read_bytes=True))
        return [one.code for checked in found for one in checked.findings if one.severity == "error"]
