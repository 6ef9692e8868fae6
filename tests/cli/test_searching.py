"""The option --where of the lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine

from chapkit_flows import open_resources
from chapkit_flows.lineage.annotations import set_tags
from chapkit_flows.lineage.conditions import ARTIFACTS, RUNS
from chapkit_flows.lineage.filters import Vocabulary
from chapkit_flows.testing.facts import record_chain


@pytest.fixture
def ids(home: Path) -> dict[str, str]:
    """A training with crps 12.5 and a tag, and a prediction with its model."""
    database = open_resources().database
    training, prediction = record_chain(database)
    set_tags(database, training.id, {"site": "A"}, by="ana")
    return {"train": training.id, "predict": prediction.id, "model": training.output("model").id}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--where", "metric.crps < 20 and (tag.site = 'A' or model = 'heat')"], ["train"]),
        (["--where", "not tag.site = 'A'"], ["predict"]),
        (["--where", "model = 'rain'"], ["predict", "train"]),
        (["--where", "model = 'rain'", "--flow", "train"], ["train"]),
        (["--where", "model = 'rain'", "--limit", "1"], ["predict"]),
        (["--where", "model = 'rain'", "--before", "{predict}"], ["train"]),
        (["--where", "started < 2020-01-01"], []),
    ],
)
def test_searches_runs(cli: CommandLine, ids: dict[str, str], options: list[str], found: list[str]) -> None:
    """A filter chooses runs, beside the other options."""
    given = [option.format(**ids) for option in options]
    assert [ids[name] for name in found] == [run["id"] for run in cli("runs", "list", *given, "--json").json["runs"]]


def test_searches_artifacts(cli: CommandLine, ids: dict[str, str]) -> None:
    """A filter chooses artifacts, by the metrics of the run that made them too."""
    for options in (["metric.crps = 12.5"], ["model = 'rain'", "--kind", "training_workspace"]):
        listed = cli("artifacts", "list", "--json", "--where", *options).json["artifacts"]
        assert [ids["model"]] == [artifact["id"] for artifact in listed]


@pytest.mark.parametrize("what", ["runs", "artifacts"])
@pytest.mark.parametrize("as_json", [False, True])
def test_points_at_what_is_wrong(cli: CommandLine, ids: dict[str, str], what: str, as_json: bool) -> None:
    """A filter that is wrong ends with exit code 2, its column, and a caret below it."""
    ended = cli(what, "list", "--where", "metric.crps << 20", *(["--json"] if as_json else []))
    said = ended.json["error"]["message"] if as_json else ended.err
    assert 2 == ended.code
    assert "wrong at column 14. Here a value is missing.\n  metric.crps << 20\n               ^" in said


@pytest.mark.parametrize(("what", "vocabulary"), [("runs", RUNS), ("artifacts", ARTIFACTS)])
def test_help_names_the_fields(cli: CommandLine, what: str, vocabulary: Vocabulary) -> None:
    """The help of the lists names every field that there is."""
    named = set(cli(what, "list", "--help").out.split("fields:")[1].split())
    assert {*vocabulary.fields, *(f"{group}.NAME" for group in vocabulary.groups)} <= named
