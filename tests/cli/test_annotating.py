"""The commands that say something of a run or an artifact after the fact."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest
from command_line import CommandLine

from chapkit_flows import open_resources
from chapkit_flows.testing.facts import make_training, record_run

ABSENT = "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"


@pytest.fixture
def ids(home: Path) -> dict[str, str]:
    """A run and its model, by the command that is about them."""
    run = record_run(open_resources().database, make_training(), flow_run_id="2b6f0cc9-04f5-4bb5-8d31-b57dfbf4ff0e")
    return {"runs": run.id, "artifacts": run.output("model").id}


@pytest.mark.parametrize("what", ["runs", "artifacts"])
def test_tags(cli: CommandLine, ids: dict[str, str], what: str) -> None:
    """Tags are set and removed, and shown with who did it."""
    assert f"Tags of {ids[what]}: site=A year=2024\n" == cli(what, "tag", ids[what], "site=A", "year=2024").out
    changed = cli(what, "tag", ids[what], "site=a=b", "--remove", "year", "--by", "ana", "--json").json
    assert {"id": ids[what], "tags": {"site": "a=b"}} == changed
    assert "site=a=b" in cli(what, "show", ids[what]).out
    shown = cli(what, "show", ids[what], "--json").json
    assert {"site": "a=b"} == shown["tags"]
    assert [getpass.getuser()] * 2 + ["ana"] * 2 == [item["author"] for item in shown["annotations"]]
    listed = cli(what, "list", "--json").json[what]
    assert {"site": "a=b"} == next(item for item in listed if item["id"] == ids[what])["tags"]


@pytest.mark.parametrize("what", ["runs", "artifacts"])
def test_notes(cli: CommandLine, ids: dict[str, str], what: str) -> None:
    """A note is shown with its author."""
    assert f"Noted on {ids[what]}\n" == cli(what, "note", ids[what], "before the floods", "--by", "ana").out
    noted = cli(what, "note", ids[what], "[red] again", "--json").json
    assert ("note", "[red] again", getpass.getuser()) == (noted["action"], noted["text"], noted["author"])
    shown = cli(what, "show", ids[what]).out
    for text in ("Note by ana", "before the floods", "[red] again"):
        assert text in shown


def test_run_by_its_flow_run(cli: CommandLine, ids: dict[str, str]) -> None:
    """A run can be tagged by the id that Prefect's UI shows."""
    tagged = cli("runs", "tag", "2b6f0cc9-04f5-4bb5-8d31-b57dfbf4ff0e", "site=A", "--json").json
    assert ids["runs"] == tagged["id"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("runs", "tag", ABSENT, "site=A"), f"No run has the id '{ABSENT}'"),
        (("artifacts", "note", ABSENT, "odd"), f"No artifact has the id {ABSENT}"),
        (("artifacts", "tag", "{runs}", "site=A"), "No artifact has the id"),
        (("runs", "tag", "{runs}", "site"), "'site' is not a tag. Write KEY=VALUE"),
        (("runs", "tag", "{runs}", "a b=A"), "'a b' cannot be the key of a tag"),
        (("runs", "tag", "{runs}"), "no tag to set or remove"),
        (("runs", "note", "{runs}", " "), "The note is empty"),
    ],
)
def test_refuses(cli: CommandLine, ids: dict[str, str], command: tuple[str, ...], message: str) -> None:
    """What cannot be said ends with exit code 2 and the remedy."""
    ended = cli(*(part.format(**ids) for part in command))
    assert 2 == ended.code
    assert message in ended.err
