"""The part of the contract of a lineage database that is about the history of configs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chapkit_flows.errors import ConfigNotFound
from chapkit_flows.lineage import configs, query, record
from chapkit_flows.lineage.dump import dump, load_dump
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import ConfigEntry, NewEntry, Origin, RunFact, entry_from_dict
from chapkit_flows.refs import ConfigRef, now
from chapkit_flows.testing.facts import count_statements, make_config, make_run, make_training


def note(database: Database, origin: Origin, ref: ConfigRef | None = None, **fields: Any) -> ConfigEntry:
    """Record a content of a named config."""
    new = NewEntry(origin=origin, author="ana", **fields)
    return configs.record_config(database, ref or make_config(n_lags=3), new)[0]


def begin(database: Database, ref: ConfigRef) -> tuple[RunFact, ConfigEntry | None]:
    """Start a run with a saved config."""
    return record.begin(database, make_run(), ref, author="bo")


def steps(database: Database, name: str = "weekly") -> list[tuple[int, str]]:
    """Number and origin of each entry."""
    return [(entry.number, entry.origin) for entry in configs.config_history(database, "rain-config", name)]


class ConfigContract:
    """How the contents of named configs are numbered, kept and found."""

    def test_contents_are_numbered(self, database: Database) -> None:
        """A new content gets the next number; the same content in another way stays under its number."""
        first, second = make_config(n_lags=3), make_config(n_lags=4)
        for origin, ref in (("run", first), ("apply", first), ("run", first), ("ui", second), ("restore", first)):
            note(database, origin, ref)  # type: ignore[arg-type]
        assert steps(database) == [(1, "run"), (1, "apply"), (2, "ui"), (3, "restore")]
        note(database, "apply", replace(first, name="monthly"))
        assert steps(database, "monthly") == [(1, "apply")]

    def test_entry_comes_back(self, database: Database) -> None:
        """An entry is read back with all that was said of it, and with its content."""
        note(database, "apply")
        entry = note(database, "restore", make_config(n_lags=4), note="ລາວ", restored=1)
        assert entry == configs.config_history(database, "rain-config", "weekly")[-1]
        assert (entry, make_config(n_lags=4)) == configs.get_version(database, "rain-config", "weekly", 2)
        assert entry.slug == "rain-config/weekly@2"
        assert entry == entry_from_dict(json.loads(json.dumps(entry.to_dict())))

    def test_version_that_is_absent(self, database: Database) -> None:
        """A number or a name that does not exist is an error that says which there are."""
        note(database, "apply")
        with pytest.raises(ConfigNotFound, match=r"no rain-config/weekly@99: it has version 1\. .*configs history"):
            configs.get_version(database, "rain-config", "weekly", 99)
        with pytest.raises(ConfigNotFound, match=r"heat-config/weekly has no recorded version.*configs list"):
            configs.get_version(database, "heat-config", "weekly", 1)

    def test_last_applied(self, database: Database) -> None:
        """What was last applied from a file is told from what was seen or restored since."""
        assert configs.last_applied(database, "rain-config", "weekly") is None
        note(database, "run")
        assert configs.last_applied(database, "rain-config", "weekly") is None
        applied = note(database, "apply", make_config(n_lags=4))
        note(database, "ui", make_config(n_lags=5))
        note(database, "restore")
        assert applied == configs.last_applied(database, "rain-config", "weekly")

    def test_run_brings_what_is_new(self, database: Database) -> None:
        """A run that finds the saved config changed records the change when it begins, and only that."""
        run, entry = begin(database, make_config(n_lags=3))
        assert entry is not None
        assert (entry.origin, entry.author, entry.created_at) == ("run", "bo", run.started_at)
        assert run == query.get_run(database, run.id)
        assert make_config(n_lags=3) == run.config
        assert begin(database, make_config(n_lags=3))[1] is None
        assert begin(database, make_config(n_lags=4))[1] is not None
        assert steps(database) == [(1, "run"), (2, "run")]

    def test_run_that_is_started_again(self, database: Database) -> None:
        """A run that begins again has the config it begins with now; a completed one is left as it was."""
        record.begin(database, make_run(flow_run_id="f1"), make_config(n_lags=3), author="bo")
        again, _ = record.begin(database, make_run(flow_run_id="f1"), make_config(n_lags=4), author="bo")
        assert make_config(n_lags=4) == again.config
        done = record.finish(database, again.id, replace(make_training(), config=make_config(n_lags=4)))
        fact, entry = record.begin(database, make_run(flow_run_id="f1"), make_config(n_lags=5), author="bo")
        assert (done, None) == (fact, entry)
        assert steps(database) == [(1, "run"), (2, "run")]

    def test_version_of_a_run(self, database: Database) -> None:
        """Each run finds the number it ran with, whatever was saved later; a changed config has none."""
        runs = [begin(database, make_config(n_lags=lags))[0] for lags in (3, 4, 3)]
        found = [configs.find_entry(database, run.config, at=run.started_at) for run in runs if run.config]
        assert [entry and entry.number for entry in found] == [1, 2, 3]
        assert configs.find_entry(database, make_config(n_lags=9), at=now()) is None
        assert configs.find_entry(database, replace(make_config(n_lags=3), name=None), at=now()) is None

    def test_heads(self, database: Database) -> None:
        """Each name is listed once, with its last entry and the number of its runs."""
        begin(database, make_config(n_lags=3))
        last = begin(database, make_config(n_lags=4))[1]
        other = note(database, "apply", replace(make_config(n_lags=3), name="another"))
        heads = configs.list_heads(database, block_type="rain-config")
        assert [(other, 0), (last, 2)] == [(head.entry, head.runs) for head in heads]
        assert configs.list_heads(database, block_type="heat-config") == []

    def test_versions_by_digest(self, database: Database) -> None:
        """A content is found by the beginning of its digest, with and without the name of the algorithm."""
        ref = make_config(n_lags=3)
        note(database, "apply", ref)
        assert [ref] == configs.find_versions(database, ref.digest[:15])
        assert [ref] == configs.find_versions(database, ref.digest[7:].upper())
        assert configs.find_versions(database, "%") == []

    def test_known_config_costs_one_read(self, database: Database) -> None:
        """A run with the config of the run before sends one statement more than a run without."""
        begin(database, make_config(n_lags=3))
        without = count_statements(database, lambda: record.begin(database, make_run()))
        assert without + 1 == count_statements(database, lambda: begin(database, make_config(n_lags=3)))

    def test_config_is_not_read_again_at_the_end(self, database: Database) -> None:
        """A run that began with its saved config neither looks for it nor writes it when it ends."""
        outcome = make_training()
        first = record.finish(database, record.start(database, make_run()).id, outcome)
        assert outcome.config == first.config

        def end(run: RunFact) -> int:
            return count_statements(database, lambda: record.finish(database, run.id, outcome))

        assert end(record.start(database, make_run())) - 2 == end(begin(database, make_config(n_lags=3))[0])

    def test_writers_at_once(self, database: Database) -> None:
        """Writers of one name at the same time get numbers of their own, and none is lost."""
        refs = [make_config(n_lags=number) for number in range(12)]
        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(lambda ref: begin(database, ref)[1], refs))
        entries = configs.config_history(database, "rain-config", "weekly")
        assert list(range(1, 13)) == [entry.sequence for entry in entries]
        assert {entry.id for entry in entries} == {entry.id for entry in made if entry}

    def test_history_comes_back(self, database: Database) -> None:
        """Entries that are recorded from their own documents give the same database, once."""
        for lags in (3, 4, 3):
            note(database, "apply", make_config(n_lags=lags), note=str(lags))
        entries = configs.config_history(database, "rain-config", "weekly")
        documents = [json.loads(json.dumps(configs.entry_document(database, entry))) for entry in entries]
        other = open_database("sqlite://")
        try:
            assert configs.restore_entries(other, documents, entries) == 3
            assert configs.restore_entries(other, documents, entries) == 0
            assert sorted(dump(database)) == sorted(dump(other))
        finally:
            other.close()

    def test_history_comes_back_beside_newer_entries(self, database: Database) -> None:
        """What was recorded after the loss of the database goes on where the old history ends."""
        entry = note(database, "apply", created_at=now() - timedelta(days=1))
        document = configs.entry_document(database, entry)
        other = open_database("sqlite://")
        try:
            note(other, "ui", make_config(n_lags=4))
            assert configs.restore_entries(other, [document], [entry]) == 1
            assert steps(other) == [(1, "apply"), (2, "ui")]
        finally:
            other.close()

    def test_history_is_in_the_dump(self, database: Database) -> None:
        """A dump brings the history back."""
        note(database, "apply")
        other = open_database("sqlite://")
        try:
            load_dump(other, dump(database))
            assert steps(database) == steps(other)
        finally:
            other.close()
