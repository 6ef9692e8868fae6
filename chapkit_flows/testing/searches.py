"""The part of the contract of a lineage database about what is said after the fact, and about search."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chapkit_flows.errors import ArtifactNotFound, InvalidId, LineageError
from chapkit_flows.lineage import query, record
from chapkit_flows.lineage.annotations import add_note, history, load_tags, remove_tags, set_tags
from chapkit_flows.lineage.engine import Database
from chapkit_flows.refs import new_id
from chapkit_flows.testing.facts import make_run, make_training, record_run


class AnnotationContract:
    """Tags and notes after the fact."""

    def test_tags_are_what_their_history_comes_to(self, database: Database) -> None:
        """The tags that stand follow from a history that keeps every change, with author and time."""
        run = record.start(database, make_run())
        set_tags(database, run.id, {"site": "A", "year": "2024"}, by="ana")
        set_tags(database, run.id, {"site": "ລາວ", "year": "2024"}, by="bo")
        tags = remove_tags(database, run.id.lower(), ["year", "absent"], by="ana")
        assert tags == {"site": "ລາວ"}
        assert {run.id: tags} == load_tags(database, [run.id])
        said = history(database, run.id)
        expected = [
            ("set", "site", "A", "ana"),
            ("set", "year", "2024", "ana"),
            ("set", "site", "ລາວ", "bo"),
            ("remove", "year", None, "ana"),
        ]
        assert expected == [(item.action, item.key, item.text, item.author) for item in said]
        assert sorted(item.created_at for item in said) == [item.created_at for item in said]
        assert said[0].created_at >= run.started_at

    def test_notes(self, database: Database) -> None:
        """Notes of any length are kept in their order beside the tags."""
        artifact = record_run(database, make_training()).output("model")
        texts = ["trained before the floods 🌧", "x" * 100_000]
        notes = [add_note(database, artifact.id, text, by="ana") for text in texts]
        assert notes == history(database, artifact.id)
        assert texts == [note.text for note in notes]
        assert {artifact.id: {}} == load_tags(database, [artifact.id])

    def test_facts_stay_as_they_are(self, database: Database) -> None:
        """What was recorded of a run and an artifact does not change with what is said of them."""
        run = record_run(database, make_training())
        set_tags(database, run.id, {"site": "A"}, by="ana")
        set_tags(database, run.output("model").id, {"site": "B"}, by="ana")
        assert run == query.get_run(database, run.id)
        assert run.output("model") == query.get_artifact(database, run.output("model").id)

    @pytest.mark.parametrize(
        "annotate",
        [
            lambda database, subject_id: set_tags(database, subject_id, {"site": "A"}, by="ana"),
            lambda database, subject_id: remove_tags(database, subject_id, ["site"], by="ana"),
            lambda database, subject_id: add_note(database, subject_id, "odd", by="ana"),
            history,
        ],
    )
    def test_subject_that_is_not_there(self, database: Database, annotate: Callable[[Database, str], object]) -> None:
        """A malformed id and an id of nothing are told apart."""
        with pytest.raises(InvalidId, match="'rain'"):
            annotate(database, "rain")
        with pytest.raises(ArtifactNotFound, match="No artifact and no run"):
            annotate(database, new_id())

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ({"": "A"}, "cannot be the key"),
            ({"a b": "A"}, "'a b' cannot be the key"),
            ({"k" * 65: "A"}, "at most 64"),
            ({"good": "A", "site": "A" * 256}, "256 characters, at most 255 fit"),
        ],
    )
    def test_tags_that_cannot_be_kept(self, database: Database, tags: dict[str, str], message: str) -> None:
        """A tag that a database might cut is refused, and those beside it are not set."""
        run = record.start(database, make_run())
        with pytest.raises(LineageError, match=message):
            set_tags(database, run.id, tags, by="ana")
        assert history(database, run.id) == []
        assert {run.id: {}} == load_tags(database, [run.id])

    def test_threads_tag_the_same_run(self, database: Database) -> None:
        """Of tags that are set at once none is lost, and the last that was recorded stands."""
        run = record.start(database, make_run())

        def tag(number: int) -> Any:
            return set_tags(database, run.id, {f"key{number}": "x", "last": str(number)}, by="ana")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(tag, range(12)))
        tags = load_tags(database, [run.id])[run.id]
        assert {f"key{number}" for number in range(12)} | {"last"} == set(tags)
        said = history(database, run.id)
        assert len(said) == 24
        assert [item.text for item in said if item.key == "last"][-1] == tags["last"]
