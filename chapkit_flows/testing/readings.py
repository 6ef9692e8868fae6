"""What a database must tell of the readings of a URI."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chapkit_flows.lineage import query, record
from chapkit_flows.lineage.dump import dump, load_dump
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import Outcome, run_from_dict
from chapkit_flows.lineage.readings import is_stale, last_reading, newer_readings, readings
from chapkit_flows.refs import new_id
from chapkit_flows.testing.facts import make_reading, make_run, make_training, record_reading, record_run

URI = "s3://bucket/laos.csv"


class ReadingContract:
    """Which dataset a URI brought, and which of them is the current one."""

    def test_readings_of_a_uri(self, database: Database) -> None:
        """The readings of a URI are read back as they were made, newest first, in pages."""
        runs = [record_reading(database, URI, content) for content in ("old", "old", "new")]
        record_reading(database, "s3://bucket/nepal.csv", "other")
        expected = [run.readings[0] for run in runs][::-1]
        assert expected == readings(database, URI)
        assert expected[0] == last_reading(database, URI)
        assert expected[:2] == readings(database, URI, limit=2)
        assert expected[2:] == readings(database, URI, limit=2, before=expected[1].id.lower())
        assert last_reading(database, "s3://bucket/absent.csv") is None
        assert [run.inputs[0].artifact.id for run in runs][::-1] == [reading.artifact_id for reading in expected]
        assert [run.id for run in runs][::-1] == [reading.run_id for reading in expected]

    def test_run_keeps_its_readings(self, database: Database) -> None:
        """A run is read back with its readings, whose dataset is the one that is recorded, and as JSON too."""
        first, second = (record_reading(database, f"{URI}?{name}", "same") for name in ("a", "b"))
        assert second == query.get_run(database, second.id)
        assert first.inputs[0].artifact.id == second.readings[0].artifact_id
        assert second == run_from_dict(json.loads(json.dumps(second.to_dict())))

    def test_later_reading_of_other_content(self, database: Database) -> None:
        """A dataset is stale once its URI has brought another, and current again once the URI brings it again."""
        old = record_reading(database, URI, "old").inputs[0].artifact.id
        assert not is_stale(database, old)
        run = record_reading(database, URI, "new")
        new = run.inputs[0].artifact.id
        assert {old: [run.readings[0]]} == newer_readings(database, [old, new])
        back = record_reading(database, URI, "old")
        assert {new: [back.readings[0]]} == newer_readings(database, [old, new])

    def test_two_uris_of_one_dataset(self, database: Database) -> None:
        """Of a dataset that two URIs brought it is told which of them has moved on."""
        old = record_reading(database, URI, "same").inputs[0].artifact.id
        record_reading(database, "s3://archive/laos.csv", "same")
        newer = record_reading(database, URI, "new").readings[0]
        assert {old: [newer]} == newer_readings(database, [old])
        assert [reading.uri for reading in newer_readings(database, [old])[old]] == [URI]

    def test_late_record_of_an_early_reading(self, database: Database) -> None:
        """What counts is when the bytes were read, not when the run ended."""
        slow = record.start(database, make_run())
        outcome = make_training(data="old")
        early = make_reading(URI, outcome.inputs[0])
        new = record_reading(database, URI, "new")
        fact = record.finish(database, slow.id, replace(outcome, readings=(early,)))
        assert new.readings[0] == last_reading(database, URI)
        assert is_stale(database, fact.inputs[0].artifact.id)

    def test_attempts_of_a_run(self, database: Database) -> None:
        """A retry adds its own readings; what is recorded again is recorded once."""
        failed = replace(make_training(data="old"), status="failed")
        failed = replace(failed, readings=(make_reading(URI, failed.inputs[0]),))
        first = record_run(database, failed)
        assert first.readings == record.finish(database, first.id, failed).readings
        retried = make_training(data="new")
        second = record.finish(database, first.id, replace(retried, readings=(make_reading(URI, retried.inputs[0]),)))
        assert [edge.artifact.id for edge in second.inputs] == [reading.artifact_id for reading in second.readings]
        assert len(second.readings) == 2

    def test_readings_are_restored(self, database: Database) -> None:
        """Readings come back from the dump of a database, and from what is known of its runs."""
        runs = [record_reading(database, URI, content) for content in ("old", "new")]
        copies = [open_database("sqlite://") for _ in range(2)]
        load_dump(copies[0], dump(database))
        record.restore_runs(copies[1], runs)
        expected = readings(database, URI)
        assert [expected, expected] == [readings(copy, URI) for copy in copies]
        for copy in copies:
            copy.close()

    def test_name_by_which_a_run_read(self, database: Database) -> None:
        """One dataset has the name under which each run read it."""
        runs = [record_reading(database, uri, "same") for uri in (URI, "s3://bucket/a/laos-2026.csv?x=1")]
        assert [run.name_of(run.inputs[0]) for run in runs] == ["laos.csv", "laos-2026.csv"]

    @pytest.mark.parametrize("length", [10, 100_000])
    def test_uri_of_any_length(self, database: Database, length: int) -> None:
        """A URI of any length and script can be recorded and found."""
        uri = "https://host/" + "ລ" * length
        run = record_reading(database, uri, new_id())
        assert run.readings[0] == last_reading(database, uri)

    def test_run_without_readings(self, database: Database) -> None:
        """A run that read nothing by URI has none."""
        assert record_run(database, Outcome(status="completed")).readings == ()
