"""The contract of a lineage database that keeps a registry of models. Define a fixture `database`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest

from chapkit_flows.errors import InvalidAlias, ModelVersionNotFound, PromotionConflict, RegistryError
from chapkit_flows.lineage import registry
from chapkit_flows.lineage.assignments import (
    Assignment,
    Decision,
    ModelVersion,
    assignment_from_dict,
    version_from_dict,
)
from chapkit_flows.lineage.dump import dump
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import Edge, Outcome
from chapkit_flows.lineage.query import get_run, producer
from chapkit_flows.lineage.record import restore_runs
from chapkit_flows.refs import new_id, now
from chapkit_flows.testing.facts import make_artifact, make_training, record_run

WHY = Decision(actor="ana", reason="better in the rainy season")


def train(database: Database, number: int, model: str = "rain") -> str:
    """Record a training; return the id of the trained model."""
    run = record_run(database, make_training(workspace=f"model {number}"), model=model)
    return run.output("model").id


def make_versions(database: Database, count: int, model: str = "rain") -> list[ModelVersion]:
    """Train and register some versions."""
    return [registry.register(database, train(database, number, model), by="ana") for number in range(count)]


def past(hours: int) -> datetime:
    """Some hours ago."""
    return now() - timedelta(hours=hours)


def promote(database: Database, version: ModelVersion, expected: int | None) -> Assignment:
    """Make a version the champion."""
    return registry.promote(database, version, alias="champion", expected=expected, decision=WHY)


class RegistryContract:
    """Model versions and aliases."""

    def test_versions_are_numbered_per_model(self, database: Database) -> None:
        """Each model counts its versions from 1; a trained model that is registered keeps its number."""
        rain = make_versions(database, 2)
        (dry,) = make_versions(database, 1, model="dry")
        assert [(one.model, one.number) for one in (*rain, dry)] == [("rain", 1), ("rain", 2), ("dry", 1)]
        assert rain[0] == registry.register(database, rain[0].artifact_id, by="bo", note="again")
        assert rain[0] == registry.find_version(database, "rain", "1")
        assert rain[1] == registry.version_of(database, rain[1].artifact_id)
        assert [dry, rain[1], rain[0]] == registry.list_versions(database)
        assert [rain[0]] == registry.list_versions(database, model="rain", before=rain[1].artifact_id)
        assert rain[0] == version_from_dict(rain[0].to_dict())

    def test_only_good_trainings_are_registered(self, database: Database) -> None:
        """Neither data, nor what a failed training left, nor what does not exist can be a version."""
        run = record_run(database, make_training())
        failed = make_artifact("training_workspace", "left", status="failed")
        record_run(database, Outcome(status="failed", outputs=(Edge(role="failed_workspace", artifact=failed),)))
        for artifact_id in (run.inputs[0].artifact.id, failed.id, run.id):
            with pytest.raises(RegistryError):
                registry.register(database, artifact_id, by="ana")
        assert registry.list_versions(database) == []

    def test_promotion_moves_the_alias(self, database: Database) -> None:
        """A promotion says who held the alias before, by whom, why and on what evidence."""
        first, second = make_versions(database, 2)
        assert _numbers(promote(database, first, expected=None)) == (None, 1)
        evidence = {"crps": {"champion": 12.5, "challenger": 11.0}}
        decision = Decision(actor="bo", reason=" less error ", evidence=evidence)
        made = registry.promote(database, second, alias="champion", expected=1, decision=decision)
        assert _numbers(made) == (1, 2)
        assert ("bo", "less error", evidence) == (made.actor, made.reason, made.evidence)
        assert second == registry.find_version(database, "rain", "champion")
        assert {"champion": made} == registry.holders(database, "rain")
        assert made == registry.assignments(database, "rain")[-1] == assignment_from_dict(made.to_dict())

    def test_promotion_against_another_holder_is_refused(self, database: Database) -> None:
        """Whoever decided against an old champion is told who is champion now, and nothing changes."""
        versions = make_versions(database, 3)
        promote(database, versions[0], expected=None)
        promote(database, versions[1], expected=1)
        with pytest.raises(PromotionConflict, match=r"is version 2 by now, since .* by ana: better.*against version 1"):
            promote(database, versions[2], expected=1)
        with pytest.raises(PromotionConflict, match="is champion already"):
            promote(database, versions[1], expected=2)
        assert versions[1] == registry.find_version(database, "rain", "champion")
        assert [one.sequence for one in registry.assignments(database, "rain", alias="champion")] == [1, 2]

    def test_two_promotions_at_once(self, database: Database) -> None:
        """Of promotions made at the same time against the same champion one wins, and the others are told."""
        versions = make_versions(database, 4)
        promote(database, versions[0], expected=None)
        gate = Barrier(3)

        def race(version: ModelVersion) -> bool:
            gate.wait()
            try:
                promote(database, version, expected=1)
            except PromotionConflict:
                return False
            return True

        with ThreadPoolExecutor(3) as pool:
            won = list(pool.map(race, versions[1:]))
        assert sum(won) == 1
        assert versions[1:][won.index(True)] == registry.find_version(database, "rain", "champion")

    def test_two_registrations_at_once(self, database: Database) -> None:
        """Models registered at the same time get numbers without gaps, and no number twice."""
        trained = [train(database, number) for number in range(4)]
        gate = Barrier(4)

        def race(artifact_id: str) -> int:
            gate.wait()
            return registry.register(database, artifact_id, by="ana").number

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(race, trained)) == [1, 2, 3, 4]

    def test_rollback_walks_back(self, database: Database) -> None:
        """Each rollback goes one holder further back, until there is none before."""
        versions = make_versions(database, 3)
        for expected, version in zip((None, 1, 2), versions, strict=True):
            promote(database, version, expected)
        back = [registry.rollback(database, "rain", alias="champion", decision=WHY).number for _ in range(2)]
        assert back == [2, 1]
        with pytest.raises(ModelVersionNotFound, match="nothing to roll back to"):
            registry.rollback(database, "rain", alias="champion", decision=WHY)
        with pytest.raises(ModelVersionNotFound, match="points to nothing"):
            registry.rollback(database, "dry", alias="champion", decision=WHY)
        assert registry.assignments(database, "rain")[-1].action == "rollback"

    def test_as_of_answers_who_was_champion_then(self, database: Database) -> None:
        """The past of an alias can be asked for any moment."""
        first, second = make_versions(database, 2)
        early, late = promote(database, first, expected=None), promote(database, second, expected=1)
        instant = timedelta(microseconds=1)
        assert None is registry.as_of(database, "rain", "champion", early.moment - instant)
        assert early == registry.as_of(database, "rain", "champion", late.moment - instant)
        assert late == registry.as_of(database, "rain", "champion", late.moment)

    def test_free_aliases(self, database: Database) -> None:
        """Other aliases are set and removed by hand; the champion is not."""
        first, second = make_versions(database, 2)
        for version in (first, second):
            registry.assign(database, version, alias="staging", decision=WHY)
        assert second == registry.find_version(database, "rain", "staging")
        registry.remove_alias(database, "rain", alias="staging", decision=WHY)
        with pytest.raises(ModelVersionNotFound, match="There is no rain@staging"):
            registry.find_version(database, "rain", "staging")
        with pytest.raises(ModelVersionNotFound, match="points to nothing"):
            registry.remove_alias(database, "rain", alias="staging", decision=WHY)
        assert registry.holders(database, "rain") == {}
        with pytest.raises(InvalidAlias, match="promotion only"):
            registry.assign(database, first, alias="champion", decision=WHY)
        with pytest.raises(InvalidAlias, match="cannot be removed"):
            registry.remove_alias(database, "rain", alias="champion", decision=WHY)
        with pytest.raises(RegistryError, match="needs a reason"):
            registry.assign(database, first, alias="staging", decision=Decision(actor="ana", reason=" "))

    @pytest.mark.parametrize("alias", ["", "a/b", "Champion", "🏆", "x" * 300, "7", "latest", "a b", "é"])
    def test_names_that_are_no_alias(self, database: Database, alias: str) -> None:
        """A name with anything but lower-case letters, digits, - and _ is refused."""
        (version,) = make_versions(database, 1)
        with pytest.raises(InvalidAlias):
            registry.assign(database, version, alias=alias, decision=WHY)

    @pytest.mark.parametrize("selector", ["99", "0", "12345678901234567890", "champion"])
    def test_versions_that_do_not_exist(self, database: Database, selector: str) -> None:
        """Asking for a version or an alias that is not there says how to list those that are."""
        make_versions(database, 1)
        with pytest.raises((ModelVersionNotFound, InvalidAlias)) as refusal:
            registry.find_version(database, "rain", selector)
        assert "chapkit-flows models list --model rain" in str(refusal.value) or len(selector) > 9

    def test_registry_comes_back(self, database: Database) -> None:
        """Versions and changes recorded from their documents give the same database."""
        first, second = make_versions(database, 2)
        changes = [
            (promote(database, first, expected=None), first.id),
            (promote(database, second, expected=1), second.id),
        ]
        runs = [get_run(database, _producer_id(database, one)) for one in (first, second)]
        other: Any = open_database("sqlite://")
        try:
            restore_runs(other, runs)
            assert registry.restore_registry(other, [first, second], changes) == 4
            assert registry.restore_registry(other, [first, second], changes) == 0
            assert sorted(dump(database)) == sorted(dump(other))
        finally:
            other.close()

    def test_what_was_numbered_twice_is_numbered_by_its_time(self, database: Database) -> None:
        """Versions and changes of a lost database come before those that were made without it."""
        first, second, third = make_versions(database, 3)
        earlier = replace(first, id=new_id(), artifact_id=train(database, 4), registered_at=past(2), number=2)
        promote(database, third, expected=None)
        change = replace(
            promote(database, second, expected=3), id=new_id(), number=2, previous=None, sequence=1, moment=past(1)
        )
        assert registry.restore_registry(database, [earlier], [(change, earlier.id)]) == 2
        in_order = [one.id for one in registry.scan_versions(database, "rain")]
        assert [earlier.id, first.id, second.id, third.id] == in_order
        assert list(map(_numbers, registry.assignments(database, "rain"))) == [(None, 1), (1, 4), (4, 3)]
        assert second.artifact_id == registry.find_version(database, "rain", "champion").artifact_id
        assert registry.restore_registry(database, [earlier], [(change, earlier.id)]) == 0


def _numbers(change: Assignment) -> tuple[int | None, int | None]:
    return change.previous, change.number


def _producer_id(database: Database, version: ModelVersion) -> str:
    run = producer(database, version.artifact_id)
    assert run is not None
    return run.id
