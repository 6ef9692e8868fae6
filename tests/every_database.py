"""What the tests of more than one kind of database share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

RunTogether = Callable[[str, int], list[subprocess.CompletedProcess[str]]]
on_every_database = pytest.mark.parametrize("url", ["sqlite", "postgresql", "mariadb"], indirect=True)
