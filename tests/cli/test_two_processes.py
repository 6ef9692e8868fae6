"""Two whole processes that write configs to one server at the same moment."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from server_api import connect

from chapkit_flows import open_resources
from chapkit_flows.lineage.configs import config_history, load_content

MODEL = """
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class {name}(ModelConfig):
    n_lags: int = 3

made = Model(name="made", config={name}, runner=FunctionalModelRunner(print, print))
"""
COUNT = 12


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True)
class Documents:
    """A config type that the server has not seen, and how to write documents of it."""

    folder: Path
    slug: str
    server: str

    def write(self, name: str, values: dict[str, int]) -> Path:
        """A file with a document of each name."""
        file = self.folder / f"{name}.yaml"
        document = "block_type_slug: {}\nname: {}\nmodel: made.py\nfields: {{n_lags: {}}}\n"
        file.write_text("---\n".join(document.format(self.slug, key, value) for key, value in values.items()))
        return file

    def saved(self) -> dict[str, int]:
        """What the server has."""
        with connect(self.server) as api:
            found: Any = api.get(f"/block_types/slug/{self.slug}/block_documents").raise_for_status().json()
        return {one["name"]: one["data"]["n_lags"] for one in found}

    def history(self, name: str) -> list[int]:
        """The contents that a name has had."""
        database = open_resources().database
        entries = config_history(database, self.slug, name)
        return [load_content(database, entry).content["n_lags"] for entry in entries]


@pytest.fixture
def documents(server: str, home: Path, tmp_path: Path) -> Documents:
    name = f"Twice{uuid.uuid4().hex[:8]}Config"
    (tmp_path / "made.py").write_text(MODEL.format(name=name))
    return Documents(folder=tmp_path, slug=name.lower().replace("config", "-config"), server=server)


def _together(*files: Path, options: tuple[str, ...] = ()) -> list[Ended]:
    """Apply files at once, each by a process of its own."""
    command = (sys.executable, "-m", "chapkit_flows.cli.main", "blocks", "apply", *options)
    begun = [
        subprocess.Popen([*command, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        for file in files
    ]
    printed = [process.communicate(timeout=300) for process in begun]
    return [
        Ended(code=process.returncode, out=out, err=err) for process, (out, err) in zip(begun, printed, strict=True)
    ]


def _is_clear(ended: Ended) -> bool:
    """Whether it is done, or says in words that somebody else was there."""
    refused = ended.code == 2 and "was changed on the server while this plan was carried out" in ended.err
    return "Traceback" not in ended.err and (ended.code == 0 or refused)


def test_same_documents_of_a_new_type(documents: Documents) -> None:
    """Of two that apply the same documents, of a new type, at least one does; all is there once."""
    values = {f"n{number}": number for number in range(COUNT)}
    file = documents.write("same", values)
    ended = _together(file, file)
    assert [True, True] == [_is_clear(one) for one in ended], ended
    assert 0 in [one.code for one in ended]
    assert values == documents.saved()
    assert [[value] for value in values.values()] == [documents.history(name) for name in values]
    (again,) = _together(file)
    assert (0, True) == (again.code, "Nothing to change." in again.out)


def test_different_documents_of_a_new_type(documents: Documents) -> None:
    """Two that apply different documents of a new type are in nobody's way."""
    halves = [{f"{side}{number}": number for number in range(COUNT // 2)} for side in ("a", "b")]
    ended = _together(*(documents.write(f"half{number}", half) for number, half in enumerate(halves)))
    assert [0, 0] == [one.code for one in ended], ended
    assert halves[0] | halves[1] == documents.saved()


def test_edits_of_one_config_are_not_lost(documents: Documents) -> None:
    """Two that change the same configs differently: what either has written is in the history; the other is told."""
    names = [f"n{number}" for number in range(COUNT // 2)]
    (first,) = _together(documents.write("first", dict.fromkeys(names, 1)))
    assert 0 == first.code, first
    files = [documents.write(f"to{value}", dict.fromkeys(names, value)) for value in (2, 3)]
    ended = _together(*files, options=("--overwrite",))
    assert [True, True] == [_is_clear(one) for one in ended], ended
    saved = documents.saved()
    for name in names:
        assert saved[name] in (2, 3)
        assert saved[name] in documents.history(name)
    for value, one in zip((2, 3), ended, strict=True):
        if one.code == 0:
            assert [True] * len(names) == [value in documents.history(name) for name in names]
