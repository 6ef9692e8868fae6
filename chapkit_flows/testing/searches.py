"""The part of the contract of a lineage database about what is said after the fact, and about search."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chapkit_flows.errors import ArtifactNotFound, InvalidId, LineageError
from chapkit_flows.lineage import query, record, search
from chapkit_flows.lineage.annotations import add_note, history, load_tags, remove_tags, set_tags
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Edge, Outcome
from chapkit_flows.lineage.filters import MOST_COMPARISONS, MOST_NESTED, MOST_VALUES
from chapkit_flows.lineage.search import FEW, search_artifacts, search_runs
from chapkit_flows.refs import digest_of, new_id
from chapkit_flows.testing.facts import make_artifact, make_prediction, make_run, make_training, record_run


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


DAYS = [datetime(2026, 1, 30, 12, tzinfo=UTC), datetime(2026, 1, 31, 0, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)]
# A filter for runs, and the numbers of the runs of `record_three` that it is true of.
RUN_FILTERS: dict[str, set[int]] = {
    "metric.crps < 20": {0, 1},
    "metric.crps < 20 and metric.crps > 10": {0},
    "metric.crps >= 1e1 AND (tag.site = 'A' or model = \"heat\")": {0, 2},
    "metric.crps != 10.5": {1, 2},
    "metric.crps in (10.5, 4)": {0, 1},
    "metric.crps < -1": set(),
    'metric."mean error" > 0': {2},
    "metric.nan < 1 or metric.nan >= 1": set(),
    "metric.up > 1e308": {0},
    "not metric.rmse > 0": {1, 2},
    "not (metric.rmse > 0 or model = 'heat')": {1},
    "tag.site = 'A'": {0, 1},
    "tag.site = 'a'": {2},
    "tag.site != 'A'": {2},
    "tag.site in ('a', 'b')": {2},
    "tag.year = 2024": {0},
    "tag.year > '202'": {0},
    "tag = 'site'": {0, 1, 2},
    "tag like 'ea'": {0},
    "tag.note ~ '50%'": {1},
    "tag.note ~ '50% of'": {1},
    "tag.note ~ '5_%'": set(),
    "tag.site = \"x' or '1' = '1\"": set(),
    "model = 'rain' and status = 'completed'": {0, 1},
    "model = 'RAIN'": set(),
    "model ~ 'ea'": {2},
    "model < 'i'": {2},
    "model < 'Z'": set(),
    "flow = 'train' and not model = 'rain'": {2},
    "status in ('running', 'failed')": {2},
    "started = 2026-01-31": {1},
    "started != 2026-01-31": {0, 2},
    "started < 2026-01-31": {0},
    "started <= 2026-01-31": {0, 1},
    "started > 2026-01-31": {2},
    "started >= 2026-01-31 and started < 2026-02-01": {1},
    "started in (2026-01-31, '2026-02-01')": {1, 2},
    "started = '2026-01-31T07:00:00+07:00'": {1},
    "started > 2026-01-30T12:00:00": {1, 2},
    "finished > 2026-01-01": {0, 1},
    "not finished > 2026-01-01": {2},
    "config = 'weekly'": {0},
    "config_digest ~ 'sha256:'": {0},
    "param.horizon = 3": {0},
    "param.horizon > 2.5": {0, 1},
    "param.horizon = '3'": {2},
    "param.horizon in (3, '3')": {0, 2},
    "param.uri ~ 'ລາວ'": {1},
    "param.uri = 'S3://B/ລາວ.CSV'": set(),
    "not param.horizon = 3": {1, 2},
}

# A filter for artifacts, and the roles of those of `record_story` that it is true of.
ARTIFACT_FILTERS: dict[str, set[str]] = {
    "kind = 'dataset'": {"data"},
    "kind ~ 'prediction'": {"prediction"},
    "level = 0": {"model"},
    "level < 1.5": {"model", "prediction"},
    "not level >= 0": {"data"},
    "status = 'ok' and size > 5": {"prediction"},
    "size in (5, 8)": {"data", "prediction", "model"},
    "created > 2020-01-01": {"data", "model", "prediction"},
    "created < 2020-01-01": set(),
    "model = 'rain'": {"data", "model"},
    "model = 'heat'": {"model", "prediction"},
    "model = 'heat' and model = 'rain'": {"model"},
    "metric.crps = 12.5": {"model"},
    "metric.rmse > 0 or level = 1": {"model", "prediction"},
    "metadata.name = 'laos.csv'": {"data"},
    "metadata.name = 'LAOS.csv'": set(),
    "metadata.name ~ 'laos'": {"data"},
    "metadata.name > 'a' and metadata.name < 'm'": {"data"},
    "metadata.rows >= 120": {"prediction"},
    "metadata.rows in (120.5, 1)": {"prediction"},
    "metadata.rows = '120.5'": set(),
    "metadata.empty = ''": {"prediction"},
    "metadata.nothing = 'null' or metadata.list ~ '1'": set(),
    "metadata.\"two words\" != 'x'": {"prediction"},
    "tag.site = 'A'": {"prediction"},
    "tag.site ~ ''": {"prediction"},
    f"digest = '{digest_of(b'model').removeprefix('sha256:')}'": {"model"},
    f"digest in ('{digest_of(b'model')}', '{digest_of(b'table')}')": {"data", "model"},
}


def make_ids(count: int) -> list[str]:
    """Ids in order, even within a millisecond."""
    return sorted(new_id() for _ in range(count))


def record_three(database: Database) -> list[str]:
    """Three runs to search: two that completed, and one of another model that runs."""
    crps = {"nan": math.nan, "up": math.inf, "crps": 10.5, "rmse": 1.0}
    parameters: list[dict[str, Any]] = [
        {"horizon": 3},
        {"horizon": 12, "uri": "s3://b/ລາວ.csv"},
        {"horizon": "3", "uri": None},
    ]
    runs = [
        record.start(database, make_run(model=model, started_at=moment, parameters=values, id=run_id))
        for model, moment, values, run_id in zip(("rain", "rain", "heat"), DAYS, parameters, make_ids(3), strict=True)
    ]
    ids = [run.id for run in runs]
    record.finish(database, ids[0], replace(make_training(workspace="0"), metrics=crps))
    record.finish(database, ids[1], replace(make_training(), config=None, code=None, metrics={"crps": 4.0}))
    failed = Outcome(status="failed", metrics={"crps": 30.0, "mean error": 2.0})
    record.finish(database, ids[2], failed)
    record.start(database, replace(runs[2]))
    for run_id, tags in zip(
        ids, ({"site": "A", "year": "2024"}, {"site": "A", "note": "50% of it"}, {"site": "a"}), strict=True
    ):
        set_tags(database, run_id, tags, by="ana")
    return ids


def record_story(database: Database) -> dict[str, str]:
    """A dataset, a model of it and a prediction with that, to search; their ids by role."""
    training = record_run(database, make_training())
    model = training.output("model")
    metadata = {"rows": 120.5, "empty": "", "nothing": None, "list": [1], "two words": "y"}
    forecast = make_artifact("prediction", "forecast", level=1, metadata=metadata)
    outcome = replace(make_prediction(model), inputs=(Edge(role="model", artifact=model),))
    outcome = replace(outcome, outputs=(Edge(role="prediction", artifact=forecast),))
    run = record_run(database, outcome, model="heat")
    set_tags(database, forecast.id, {"site": "A"}, by="ana")
    set_tags(database, run.id, {"site": "A"}, by="ana")
    return {"data": training.inputs[0].artifact.id, "model": model.id, "prediction": forecast.id}


class SearchContract:
    """Search with the filter language."""

    @pytest.mark.parametrize("few", [FEW, 0], ids=["by index", "row by row"])
    def test_runs(self, database: Database, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
        """A filter finds the runs that it is true of, newest first, in whatever way they are looked for."""
        monkeypatch.setattr(search, "FEW", few)
        ids = record_three(database)
        found = {where: [ids.index(run.id) for run in search_runs(database, where)] for where in RUN_FILTERS}
        wrong = {where: numbers for where, numbers in found.items() if numbers != sorted(RUN_FILTERS[where])[::-1]}
        assert wrong == {}, wrong

    @pytest.mark.parametrize("few", [FEW, 0], ids=["by index", "row by row"])
    def test_artifacts(self, database: Database, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
        """A filter finds the artifacts that it is true of, by what they are and by the runs around them."""
        monkeypatch.setattr(search, "FEW", few)
        roles = {artifact_id: role for role, artifact_id in record_story(database).items()}
        found = {where: {roles[item.id] for item in search_artifacts(database, where)} for where in ARTIFACT_FILTERS}
        wrong = {where: names for where, names in found.items() if names != ARTIFACT_FILTERS[where]}
        assert wrong == {}, wrong

    @pytest.mark.parametrize("few", [FEW, 0], ids=["by index", "row by row"])
    def test_artifacts_by_what_was_measured_of_them(
        self, database: Database, monkeypatch: pytest.MonkeyPatch, few: int
    ) -> None:
        """A prediction is found by its own scores, of whatever run; the runs that scored it by theirs alone."""
        monkeypatch.setattr(search, "FEW", few)
        ids = record_story(database)
        forecast = query.get_artifact(database, ids["prediction"])
        for crps in (4.5, 9.0):
            scored = Outcome(
                status="completed",
                inputs=(Edge(role="prediction", artifact=forecast),),
                metrics={"mae": crps},
                artifact_metrics={forecast.id: {"crps": crps}},
            )
            last = record_run(database, scored, flow="score")
        found = {
            where: [one.id for one in search_artifacts(database, where)]
            for where in ("metric.crps < 5", "metric.crps = 9", "metric.crps < 4", "metric.crps > 12", "metric.mae > 0")
        }
        expected = {
            "metric.crps < 5": [forecast.id],
            "metric.crps = 9": [forecast.id],
            "metric.crps < 4": [],
            "metric.crps > 12": [ids["model"]],
            "metric.mae > 0": [],
        }
        assert expected == found, found
        assert [last.id] == [run.id for run in search_runs(database, "metric.mae = 9")]
        assert search_runs(database, "metric.crps < 10") == []

    def test_one_by_id(self, database: Database) -> None:
        """A run or an artifact is found by its id in either case."""
        ids = record_story(database)
        (found,) = search_artifacts(database, f"id = {ids['model'].lower()}")
        assert ids["model"] == found.id
        run = record.start(database, make_run())
        assert [run] == search_runs(database, f"id in ('{run.id}', '{new_id()}')")

    @pytest.mark.parametrize("few", [FEW, 0], ids=["by index", "row by row"])
    def test_pages_of_a_search_are_stable(self, database: Database, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
        """Walking the pages of a search gives each run once although new ones that fit come in between."""
        monkeypatch.setattr(search, "FEW", few)

        def tag_new() -> str:
            run = record.start(database, make_run())
            set_tags(database, run.id, {"site": "A"}, by="ana")
            return run.id

        expected = sorted((tag_new() for _ in range(7)), reverse=True)
        found: list[str] = []
        before = None
        while page := search_runs(database, "tag.site = 'A'", limit=3, before=before):
            found += [run.id for run in page]
            before = found[-1].lower()
            tag_new()
        assert expected == found

    def test_search_beside_fixed_fields(self, database: Database) -> None:
        """A field that is given as it is, quotes and all, narrows a search."""
        ids = record_three(database)
        assert [ids[0]] == [
            run.id for run in search_runs(database, "tag.site='A' or tag='x'", equals={"config": "weekly"})
        ]
        assert search_runs(database, "tag = 'site'", equals={"model": "' or '1' = '1", "flow": None}) == []

    @pytest.mark.parametrize(
        "where",
        [
            " or ".join(f"tag.key{number} = 'x'" for number in range(MOST_COMPARISONS)),
            " and ".join(f"metric.m{number} < 1" for number in range(MOST_COMPARISONS)),
            f"{'not ' * MOST_NESTED}tag = 'x'",
            f"{'(tag = 1 or not (' * (MOST_NESTED // 3)}tag = 'y'{'))' * (MOST_NESTED // 3)}",
            f"id in ({', '.join(str(number) for number in range(MOST_VALUES))})",
            f"started in ({', '.join(['2026-01-31'] * MOST_VALUES)})",
            "metric.crps < 1e999 and metric.crps > -1e999 and param.a < 1e999",
            "tag.site = '\x00\udcff'",
        ],
        ids=["or", "and", "nested", "mixed", "values", "days", "infinite", "no text"],
    )
    def test_largest_filters(self, database: Database, where: str) -> None:
        """What the language allows no database refuses."""
        record.start(database, make_run())
        assert search_runs(database, where) == []
