"""Commands over all that a filter is true of."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from command_line import CommandLine

from chapkit_flows import open_resources
from chapkit_flows.cli import selection
from chapkit_flows.lineage.annotations import load_tags
from chapkit_flows.lineage.query import list_artifacts, list_runs
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.testing.facts import make_training, record_run

MODELS = ("--where", "kind = 'training_workspace'")


@pytest.fixture
def models(home: Path) -> list[ArtifactRef]:
    """Three trained models with their bytes, the newest first; the table that they were trained on has none."""
    resources = open_resources()
    for number in range(3):
        content = f"model {number}"
        resources.store.put(io.BytesIO(content.encode()))
        record_run(resources.database, make_training(workspace=content))
    return list_artifacts(resources.database, kind="training_workspace")


def kept() -> list[str]:
    return [one.id for one in list_artifacts(open_resources().database, kind="training_workspace")]


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def test_deletes_and_restores(cli: CommandLine, models: list[ArtifactRef]) -> None:
    """What a filter chooses goes into the trash and comes back, after a look that changes nothing."""
    looked = cli("artifacts", "delete", *MODELS, "--reason", "x", "--dry-run")
    assert "3 of 3 would be put into the trash, 21 B:\n" in looked.out
    assert all(one.id in looked.out for one in models)
    assert [one.id for one in models] == kept()
    assert "3 of 3 put into the trash.\n" == cli("artifacts", "delete", *MODELS, "--reason", "x").out
    assert [] == kept()
    assert "Nothing matches.\n" == cli("artifacts", "delete", *MODELS, "--reason", "x").out
    assert 3 == cli("artifacts", "restore", *MODELS, "--dry-run", "--json").json["would"]
    assert "3 of 3 taken out of the trash.\n" == cli("artifacts", "restore", *MODELS).out
    assert [one.id for one in models] == kept()


def test_bytes_that_are_gone(cli: CommandLine, models: list[ArtifactRef]) -> None:
    """What has no bytes to come back with stays in the trash, and the exit code says so."""
    assert (
        4
        == cli("artifacts", "delete", "--where", "level < 9 or kind = 'dataset'", "--reason", "x", "--json").json[
            "changed"
        ]
    )
    ended = cli("artifacts", "restore", "--where", "size > 0")
    assert (1, 3) == (ended.code, len(kept()))
    assert "3 of 4 taken out of the trash.\nThe bytes of 1 are gone" in ended.out


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 2), ("no\n", 2)])
def test_asks_before_much_is_deleted(
    cli: CommandLine, models: list[ArtifactRef], monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    """On a terminal a large deletion waits for a yes."""
    monkeypatch.setattr(selection, "ASK_ABOVE", 2)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ended = cli("artifacts", "delete", *MODELS, "--reason", "x")
    assert code == ended.code
    assert "3 artifacts, 21 B, will be put into the trash. Go on? [y/N] " in ended.err
    assert (3 if code else 0) == len(kept())


@pytest.mark.parametrize(("more", "code"), [([], 2), (["--yes"], 0)])
def test_needs_a_yes_where_nobody_can_be_asked(
    cli: CommandLine, models: list[ArtifactRef], monkeypatch: pytest.MonkeyPatch, more: list[str], code: int
) -> None:
    """In a script a large deletion is refused without --yes."""
    monkeypatch.setattr(selection, "ASK_ABOVE", 2)
    ended = cli("artifacts", "delete", *MODELS, "--reason", "x", *more)
    assert code == ended.code
    assert ("confirm with --yes" in ended.err) == bool(code)
    assert (3 if code else 0) == len(kept())


def test_tags(cli: CommandLine, models: list[ArtifactRef]) -> None:
    """Tags of all that a filter chooses are set and removed; a dry run tells what is tagged already."""
    cli("artifacts", "tag", models[0].id, "site=A")
    looked = cli("artifacts", "tag", *MODELS, "site=A", "--dry-run", "--json").json
    assert (3, 2, [one.id for one in models[1:]]) == (looked["matched"], looked["would"], looked["first"])
    assert "2 of 3 tagged anew.\n" == cli("artifacts", "tag", *MODELS, "site=A").out
    changed = cli(
        "artifacts", "tag", "year=2024", "--where", "tag.site = 'A'", "--remove", "site", "--by", "bo", "--json"
    )
    assert {"dry_run": False, "matched": 3, "changed": 3, "gone": []} == changed.json
    ids = [one.id for one in models]
    assert [{"year": "2024"}] * 3 == list(load_tags(open_resources().database, ids).values())
    assert "3 of 3 tagged anew.\n" == cli("runs", "tag", "--where", "metric.crps < 20", "site=B").out
    assert 3 == len(cli("runs", "list", "--where", "tag.site = 'B'", "--json").json["runs"])


def test_exports_facts(cli: CommandLine, models: list[ArtifactRef], tmp_path: Path) -> None:
    """Facts of artifacts and runs are written one a line, as the lists show them, or as a table."""
    cli("artifacts", "tag", models[0].id, "site=A")
    file, table = tmp_path / "models.jsonl", tmp_path / "runs.csv"
    assert f"Wrote 3 lines to {file}\n" == cli("artifacts", "export", *MODELS, "--out", file).out
    listed = cli("artifacts", "list", *MODELS, "--json").json["artifacts"]
    assert listed == [json.loads(line) for line in file.read_text().splitlines()]
    assert {"site": "A"} == listed[0]["tags"]
    runs = list_runs(open_resources().database)
    assert 3 == cli("runs", "export", "--where", "model = 'rain'", "--out", table, "--json").json["matched"]
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(run.id, run.metrics) for run in runs] == [(row["id"], json.loads(row["metrics"])) for row in rows]
    assert 2 == cli("runs", "export", runs[0].id, "--out", table).code
    assert f"Wrote 1 line to {table}\n" == cli("runs", "export", runs[0].id, "--out", table, "--force").out


def test_downloads_into_a_folder(cli: CommandLine, models: list[ArtifactRef], tmp_path: Path) -> None:
    """What a filter chooses is written under names of its own; done again, only what is not there yet."""
    folder = tmp_path / "out"
    assert 3 == cli("artifacts", "download", *MODELS, "--out", folder, "--dry-run", "--json").json["would"]
    assert not folder.exists()
    assert f"Wrote 3 of 3 to {folder}\n" == cli("artifacts", "download", *MODELS, "--out", folder).out
    found = {file.name.split(".")[0]: file.read_bytes() for file in folder.iterdir()}
    assert {one.id: f"model {2 - number}".encode() for number, one in enumerate(models)} == found
    next(folder.iterdir()).unlink()
    ended = cli("artifacts", "download", "--where", "created > 2020-01-01", "--out", folder)
    assert 1 == ended.code
    assert f"Wrote 1 of 4 to {folder}; 2 were there already\n1 could not be written" in ended.out
    assert "does not hold the object" in ended.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("artifacts", "delete", "--reason", "x"), "What is it about? Name an id, or"),
        (("artifacts", "delete", "{id}", *MODELS, "--reason", "x"), "not both"),
        (("artifacts", "restore"), "What is it about?"),
        (("artifacts", "tag", "{id}", "site=A", *MODELS), "not both"),
        (("artifacts", "tag", "site=A"), "What is it about?"),
        (("artifacts", "tag", *MODELS), "no tag to set or remove"),
        (("artifacts", "tag", *MODELS, "a b=A", "--dry-run"), "cannot be the key of a tag"),
        (("artifacts", "delete", "--where", "", "--reason", "x"), "column 1"),
        (("artifacts", "delete", *MODELS, "--reason", " "), "needs a reason"),
        (("artifacts", "export", *MODELS, "--out", "x.txt"), "ends in .jsonl or .csv"),
        (("artifacts", "download", *MODELS), "Name a folder with --out"),
        (("artifacts", "download"), "What is it about?"),
    ],
)
def test_refuses(cli: CommandLine, models: list[ArtifactRef], command: tuple[str, ...], said: str) -> None:
    """What is not clear changes nothing and ends with exit code 2."""
    ended = cli(*(part.format(id=models[0].id) for part in command))
    assert 2 == ended.code
    assert said in ended.err
    assert [one.id for one in models] == kept()


@pytest.mark.parametrize("what", ["runs", "artifacts"])
def test_filter_that_chooses_nothing(cli: CommandLine, home: Path, tmp_path: Path, what: str) -> None:
    """A filter that chooses nothing says so and writes nothing."""
    assert "Nothing matches.\n" == cli(what, "export", "--where", "id = 'x'", "--out", tmp_path / "x.csv").out
    assert "Nothing matches.\n" == cli(what, "tag", "--where", "id = 'x'", "a=b").out
    assert [] == list(tmp_path.glob("*.csv"))
