"""The command line for the tests of flows."""

from __future__ import annotations

import pytest
from command_line import CommandLine


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Run commands within this process."""
    return CommandLine(capsys, monkeypatch)
