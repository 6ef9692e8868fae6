"""What is shown of a large transfer while it goes on."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import pytest

from chapkit_flows.artifacts.store import CHUNK, open_store
from chapkit_flows.artifacts.trees import put_tree
from chapkit_flows.cli import progress
from chapkit_flows.cli.progress import show_uploads
from chapkit_flows.testing.stores import some_bytes


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("screen", "as_json", "large", "shown"),
    [
        (Screen(), False, 5 * CHUNK, True),
        (Screen(), False, 50 * CHUNK, False),
        (Screen(), True, 5 * CHUNK, False),
        (io.StringIO(), False, 5 * CHUNK, False),
    ],
    ids=["large", "small", "json", "no terminal"],
)
def test_uploads_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, screen: io.StringIO, as_json: bool, large: int, shown: bool
) -> None:
    """A folder that is stored in parts by several threads shows one bar, on a terminal, if it is large."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / str(number)).write_bytes(bytes([number]) + some_bytes(2 * CHUNK))
    store = open_store(str(tmp_path / "store"))
    with monkeypatch.context() as patched:
        patched.setattr(progress, "LARGE", large)
        patched.setattr(sys, "stderr", screen)
        with show_uploads(argparse.Namespace(json=as_json)):
            tree = put_tree(store, source)
        store.put(io.BytesIO(some_bytes(9 * CHUNK)))  # nobody watches any more
    assert ("store" in screen.getvalue()) == shown
    assert 1 + 2 * CHUNK == tree.size // 3
