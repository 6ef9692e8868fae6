"""Any history of storing, recording, deleting, restoring, collecting and dying: nothing that lives is ever lost."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from worlds import World

from chapkit_flows.errors import UpkeepError
from chapkit_flows.lineage.deletions import in_trash
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.upkeep.collection import Policy, collect
from chapkit_flows.upkeep.trash import delete, restore

# A handful of contents, so that runs share bytes, and folders share files.
CONTENTS = st.sampled_from([b"", b"a", b"b", b"ab" * 100])
FILES = st.dictionaries(st.sampled_from(["one", "two", "three"]), CONTENTS, min_size=1)


class Histories(RuleBasedStateMachine):
    """Compares the world with what a list of wanted artifacts says about it."""

    runs = Bundle("runs")
    stored = Bundle("stored")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.world = World.make(self.folder)
        self.wanted: dict[str, ArtifactRef] = {}

    @rule(target=runs, data=CONTENTS, files=FILES)
    def train(self, data: bytes, files: dict[str, bytes]) -> RunFact:
        """A run stores and records."""
        return self._record(self.world.train(data, **files))

    @rule(target=stored, data=CONTENTS, files=FILES)
    def store_only(self, data: bytes, files: dict[str, bytes]) -> tuple[ArtifactRef, ArtifactRef]:
        """A run stores, and has not recorded yet: it may, or it dies."""
        return self.world.put(data), self.world.put_folder(files)

    @rule(target=runs, pair=consumes(stored))
    def record_late(self, pair: tuple[ArtifactRef, ArtifactRef]) -> RunFact | object:
        """A run records what it stored before, within the grace period."""
        if any(self.world.faults_of(one) for one in pair):
            return multiple()  # it was too slow: its bytes were collected
        return self._record(self.world.record(*pair))

    @rule(run=runs)
    def throw_away(self, run: RunFact) -> None:
        """Somebody deletes a model."""
        model = run.output("model")
        delete(self.world.resources, [model.id], actor="ana", reason="x")
        self.wanted.pop(model.id, None)

    @rule(run=runs)
    def bring_back(self, run: RunFact) -> None:
        """Somebody wants it back, and may be too late."""
        model = run.output("model")
        if self.world.faults_of(model):
            return
        try:
            restore(self.world.resources, [model.id], actor="bo")
        except UpkeepError:
            return
        self.wanted[model.id] = model

    @rule(days=st.sampled_from([1, 3, 8, 40]))
    def let_time_pass(self, days: int) -> None:
        """All bytes grow older."""
        self.world.age(days)

    @rule(retention=st.sampled_from([timedelta(0), timedelta(days=30)]))
    def collect(self, retention: timedelta) -> None:
        """A collection, sometimes one that keeps nothing in the trash."""
        collect(self.world.resources, Policy(retention=retention))

    @invariant()
    def nothing_that_lives_is_lost(self) -> None:
        """Every wanted artifact is whole."""
        for artifact in self.wanted.values():
            assert [] == self.world.faults_of(artifact), artifact
        assert {} == in_trash(self.world.resources.database, set(self.wanted))

    def teardown(self) -> None:
        """Nothing is left."""
        assert [] == self.world.faults()
        self.world.resources.database.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record(self, run: RunFact) -> RunFact:
        self.wanted |= {edge.artifact.id: edge.artifact for edge in (*run.inputs, *run.outputs)}
        return run


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking would take longer than reading the history
)
