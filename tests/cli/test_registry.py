"""The commands of the registry: versions, aliases, promotion and rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from chapkit_flows import open_resources
from chapkit_flows.testing.facts import make_training, record_run


@pytest.fixture
def trained(home: Path) -> list[str]:
    """The ids of two trained models."""
    database = open_resources().database
    runs = [record_run(database, make_training(workspace=str(number))) for number in range(2)]
    return [run.output("model").id for run in runs]


@pytest.fixture
def registered(cli: CommandLine, trained: list[str]) -> list[str]:
    """The same, registered as rain@1 and rain@2."""
    for artifact_id in trained:
        cli("models", "register", artifact_id, "--by", "ana")
    return trained


def test_registers(cli: CommandLine, trained: list[str]) -> None:
    """A trained model gets the next number, and keeps it."""
    assert f"{trained[0]} is rain@1\n" == cli("models", "register", trained[0]).out
    version = cli("models", "register", trained[1], "--by", "ana", "--note", "wet", "--json").json
    expected = {"model": "rain", "number": 2, "artifact_id": trained[1], "registered_by": "ana", "note": "wet"}
    assert expected == {key: version[key] for key in expected}
    assert f"{trained[0]} is rain@1\n" == cli("models", "register", trained[0]).out


def test_lists(cli: CommandLine, registered: list[str]) -> None:
    """Versions are listed newest first, with their aliases, in pages."""
    cli("models", "promote", "rain@1", "--reason", "the first")
    first = cli("models", "list", "--limit", "1")
    assert "rain@2" in first.out
    assert f"models list --before {registered[1]}" in first.err
    second = cli("models", "list", "--limit", "1", "--before", registered[1], "--json").json
    assert [("rain", 1, ["champion"])] == [(one["model"], one["number"], one["aliases"]) for one in second["versions"]]
    assert [] == cli("models", "list", "--model", "dry", "--json").json["versions"]


def test_promotes_and_rolls_back(cli: CommandLine, registered: list[str]) -> None:
    """A promotion says who was champion before; a rollback gives the alias back; the history tells both."""
    assert "rain@champion is version 1 now\n" == cli("models", "promote", "rain@1", "--reason", "the first").out
    told = cli("models", "promote", registered[1], "--reason", "less error", "--by", "bo").out
    assert "rain@champion is version 2 now, before: version 1\n" == told
    assert registered[1] == cli("models", "show", "rain@champion", "--json").json["artifact_id"]
    back = cli("models", "rollback", "rain", "--reason", "too dry", "--json").json
    assert ("rollback", 1, 2) == (back["action"], back["number"], back["previous"])
    history = cli("models", "history", "rain").out
    for words in ("registered", "promoted", "less error", "rolled back", "too dry"):
        assert words in history
    assert 3 == len(cli("models", "history", "rain", "--json").json["assignments"])


def test_shows_who_was_champion_then(cli: CommandLine, registered: list[str]) -> None:
    """An alias can be asked for the past."""
    cli("models", "promote", "rain@1", "--reason", "the first")
    then = cli("models", "history", "rain", "--json").json["assignments"][0]["moment"]
    cli("models", "promote", "rain@2", "--reason", "less error")
    assert 1 == cli("models", "show", "rain@champion", "--at", then, "--json").json["number"]
    refused = cli("models", "show", "rain@champion", "--at", "2020-01-01")
    assert 2 == refused.code
    assert "rain@champion pointed to nothing at 2020-01-01" in refused.err


def test_shows_where_a_version_came_from(cli: CommandLine, registered: list[str]) -> None:
    """A version shows its training, its config and the data behind it."""
    shown = cli("models", "show", "rain@1").out
    run: Any = cli("models", "show", "rain@1", "--json").json["training"]
    for words in (registered[0], run["id"], "\n  n_lags       3\n", run["inputs"][0]["artifact"]["id"], "by ana"):
        assert words in shown


def test_free_alias(cli: CommandLine, registered: list[str]) -> None:
    """Any other alias is set and removed by hand."""
    assert "rain@staging is version 2 now\n" == cli("models", "alias", "rain@2", "staging", "--reason", "try it").out
    told = cli("models", "alias", "rain", "staging", "--remove", "--reason", "done").out
    assert "rain@staging is nothing now, before: version 2\n" == told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("promote", "rain@9", "--reason", "x"),
            "There is no rain@9. List the versions with: chapkit-flows models list",
        ),
        (("promote", "rain@1", "--reason", " "), "needs a reason"),
        (("promote", "rain@1", "--alias", "a/b", "--reason", "x"), "'a/b' cannot be an alias"),
        (("alias", "rain@1", "champion", "--reason", "x"), "models promote rain@1"),
        (("alias", "rain@1", "🏆" * 300, "--reason", "x"), "cannot be an alias"),
        (("alias", "rain@1", "a" * 300, "--reason", "x"), f"'{'a' * 40}…' cannot be an alias"),
        (("rollback", "rain", "--reason", "x"), "rain@champion points to nothing"),
        (("show", "rain"), "'rain' is not an id"),
        (("show", "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"), "is not registered"),
        (("history", "dry"), "No version of a model 'dry' is registered"),
        (("register", "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"), "is no trained model"),
    ],
)
def test_refusals(cli: CommandLine, registered: list[str], arguments: tuple[str, ...], words: str) -> None:
    """What cannot be done is refused with the way out, and changes nothing."""
    refused = cli("models", *arguments)
    assert 2 == refused.code
    assert words in refused.err
    assert [] == cli("models", "history", "rain", "--json").json["assignments"]


def test_model_in_the_trash_gets_no_alias(cli: CommandLine, registered: list[str]) -> None:
    """A deleted model is neither registered nor promoted: nobody could predict with it. Its number stays."""
    cli("models", "promote", "rain@1", "--reason", "the first")
    cli("artifacts", "delete", registered[1], "--reason", "x")
    for command in (
        ("promote", "rain@2", "--reason", "better"),
        ("alias", "rain@2", "staging", "--reason", "better"),
        ("register", registered[1]),
    ):
        refused = cli("models", *command)
        assert (2, True) == (refused.code, f"artifacts restore {registered[1]}" in refused.err)
    assert registered[0] == cli("models", "show", "rain@champion", "--json").json["artifact_id"]
    assert registered[1] == cli("models", "show", "rain@2", "--json").json["artifact_id"]


def test_deletion_of_a_model_in_use_warns(cli: CommandLine, registered: list[str]) -> None:
    """Whoever deletes a model that has an alias is told which, and that predictions by it are refused from then on."""
    cli("models", "promote", "rain@1", "--reason", "the first")
    deleted = cli("artifacts", "delete", *registered, "--reason", "x")
    warnings = [line for line in deleted.err.splitlines() if line.startswith("warning:")]
    assert (0, ["warning: rain@1 is champion: predictions with rain@champion are refused now."]) == (
        deleted.code,
        warnings,
    )
