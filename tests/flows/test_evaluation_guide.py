"""What docs/evaluation.md tells is true: its files are made, and its commands end as it says, in their order."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
from command_line import CommandLine

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
# "# exit code 1: why", "# Run: FIRST": what a command ends with, and the name that the page gives to what it printed.
ENDS = re.compile(r"# exit code (\d)")
PRINTS = re.compile(r"# ([A-Z][a-z ]+): ([A-Z]+)$")


@pytest.mark.usefixtures("server", "home")
def test_guide_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command ends as the guide says, with the things that commands before it have printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    cli = CommandLine(capsys, monkeypatch)
    names: dict[str, str] = {}
    for language, text in BLOCK.findall(GUIDE):
        if language != "sh":
            write_file(tmp_path, text)
            continue
        for line in text.replace("\\\n", "").splitlines():
            run(cli, line, names)
    assert {"FIRST", "SECOND", "FORECAST"} <= set(names)
    assert "How optimistic revised data are" in Path("vintages.html").read_text(encoding="utf-8")
    assert "Model card: dengue@" in Path("champion.html").read_text(encoding="utf-8")


def write_file(folder: Path, text: str) -> None:
    """Write a file whose first line is a comment with its name."""
    named = re.match(r"# (\S+)\n", text)
    assert named, text
    (folder / named[1]).write_text(text, encoding="utf-8")


def run(cli: CommandLine, line: str, names: dict[str, str]) -> None:
    """Run a line of the guide; keep the names that it gives."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "python":
        runpy.run_path(arguments[0], run_name="__main__")
        return
    ended = cli(*(names.get(argument, argument) for argument in arguments))
    wanted = ENDS.search(line)
    assert (int(wanted[1]) if wanted else 0) == ended.code, (line, ended)
    if given := PRINTS.search(line):
        found = re.search(rf"^{given[1]} +(\S+)$", ended.out, re.MULTILINE)
        assert found, (line, ended)
        names[given[2]] = found[1]
