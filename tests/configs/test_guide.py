"""The guide to configs: its files are made, and its commands do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import CommandLine

GUIDE = (Path(__file__).parents[2] / "docs/configs.md").read_text(encoding="utf-8")
DIFFERENT = ["rain-config/default rain-config/wet", "rain-config/default@1 rain-config/default@2 --md"]


def parts(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.usefixtures("server", "home")
def test_guide_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of the guide succeed in their order; a comparison ends with 1 where it says that things differ."""
    monkeypatch.chdir(tmp_path)
    cli = CommandLine(capsys, monkeypatch)
    (tmp_path / "blocks").mkdir()
    (tmp_path / "rain.py").write_text(parts("python")[0])
    (tmp_path / "blocks/rain.yaml").write_text(parts("yaml")[0])
    commands = [shlex.split(line.split(" #")[0])[1:] for text in parts("sh") for line in text.splitlines()]
    ends = {" ".join(command): cli(*command) for command in commands}
    expected = {f"configs diff {what}": 1 for what in DIFFERENT}
    assert {name: expected.get(name, 0) for name in ends} == {name: end.code for name, end in ends.items()}
    assert "is now version 3: restores" in ends["configs restore rain-config/default@1"].out
    document = tmp_path / "blocks/rain.yaml"
    document.write_text(document.read_text().replace("n_lags: 6", "n_lags: 5"))
    refused = cli("blocks", "apply", "blocks/")
    assert 2 == refused.code
    assert "error trend_needs_lags (config.n_lags)" in refused.err
    assert "A trend over 3 periods needs twice as many lags, not 5." in refused.err
