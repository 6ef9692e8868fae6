"""Changing single values in the text of a YAML file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapkit_flows.configs.edits import REMOVED, Edit, edit_document, write_whole
from chapkit_flows.configs.yaml_values import load_yaml
from chapkit_flows.errors import ConfigError

TEXT = """\
# first
name:   one     # the name
fields: {a: 1,   b: "two"}
---
# second
name: two

fields:
    n_lags:  3   # how far back
    label: 'x'
    # before the places
    places:
    - a   # the first
    - b
    tuning:
        rate: 0.1   # slow
        steps: [1,  2, 3]
    empty:
    text: |
        several
        lines

# at the end
---
name: three
"""


def changed_lines(index: int, *edits: tuple[str, Any], text: str = TEXT) -> list[str]:
    """The lines that edits take away (-) and bring (+)."""
    made = [Edit(path=tuple(path.split(".")), value=value) for path, value in edits]
    after = edit_document(text, index, made)
    return [line for line in difflib.ndiff(text.splitlines(), after.splitlines()) if line[0] in "-+"]


@pytest.mark.parametrize(
    ("index", "path", "value", "expected"),
    [
        (1, "fields.n_lags", 6, ["-     n_lags:  3   # how far back", "+     n_lags:  6   # how far back"]),
        (1, "fields.label", "it's", ["-     label: 'x'", "+     label: 'it''s'"]),
        (1, "fields.label", True, ["-     label: 'x'", "+     label: true"]),
        (1, "fields.empty", "a: b", ["-     empty:", "+     empty: 'a: b'"]),
        (0, "fields.b", "x, y", ['- fields: {a: 1,   b: "two"}', '+ fields: {a: 1,   b: "x, y"}']),
        (0, "fields.a", REMOVED, ['- fields: {a: 1,   b: "two"}', '+ fields: {b: "two"}']),
        (0, "fields.b", REMOVED, ['- fields: {a: 1,   b: "two"}', "+ fields: {a: 1}"]),
        (0, "fields.c", [1], ['- fields: {a: 1,   b: "two"}', '+ fields: {a: 1,   b: "two", c: [1]}']),
        (1, "fields.tuning.rate", 1e-7, ["-         rate: 0.1   # slow", "+         rate: 1.0e-07   # slow"]),
        (1, "fields.tuning.steps", [1, 3], ["-         steps: [1,  2, 3]", "+         steps: [1,  3]"]),
        (
            1,
            "fields.tuning.steps",
            [0, 1, 2, 3, 4],
            ["-         steps: [1,  2, 3]", "+         steps: [0, 1,  2, 3, 4]"],
        ),
        (1, "fields.tuning.steps", [], ["-         steps: [1,  2, 3]", "+         steps: []"]),
        (1, "fields.tuning.depth", 2, ["+         depth: 2"]),
        (1, "fields.tuning.rate", REMOVED, ["-         rate: 0.1   # slow"]),
        (1, "fields.places", ["a", "b", "c"], ["+     - c"]),
        (1, "fields.places", ["z", "a", "b"], ["+     - z"]),
        (1, "fields.places", ["b"], ["-     - a   # the first"]),
        (1, "fields.places", ["a", "c"], ["-     - b", "+     - c"]),
        (1, "fields.new", {"x": [1]}, ["+     new: {x: [1]}"]),
        (1, "fields.text", REMOVED, ["-     text: |", "-         several", "-         lines"]),
        (2, "fields.n_lags", 3, ["+ fields: {n_lags: 3}"]),
    ],
)
def test_only_what_changed_changes(index: int, path: str, value: Any, expected: list[str]) -> None:
    """One changed value changes its own line, and no comment, order, quote or space elsewhere."""
    assert expected == changed_lines(index, (path, value))


def test_several_edits_of_one_document() -> None:
    """Edits do not get in each other's way."""
    assert [
        "-     n_lags:  3   # how far back",
        "+     n_lags:  10000   # how far back",
        "+     x: 1",
        "+     y: 2",
    ] == (changed_lines(1, ("fields.n_lags", 10000), ("fields.x", 1), ("fields.y", 2)))


def test_line_ends_stay() -> None:
    """A file with the line ends of Windows keeps them, in new lines too."""
    text = TEXT.replace("\n", "\r\n")
    after = edit_document(text, 1, [Edit(path=("fields", "places"), value=["a", "b", "c"])])
    assert text.replace("    - b\r\n", "    - b\r\n    - c\r\n") == after


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "a: {b: &x [1]}\n"])
def test_anchors_are_left_alone(text: str) -> None:
    """A value that may stand for several is not touched; what to write by hand is said."""
    with pytest.raises(ConfigError, match=r"Change it by hand: a is now 2"):
        edit_document(text, 0, [Edit(path=("a",), value=2)])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab: ,#'\"[]{}-é☔\n", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["k", "l m", "1"]), inner, max_size=3),
    max_leaves=5,
)


@given(value=VALUES, path=st.sampled_from(["n_lags", "label", "places", "tuning", "empty", "text", "other"]))
def test_any_value_is_found_again(value: Any, path: str) -> None:
    """Whatever is written is read as it was given, and the other documents stay as they are."""
    after = edit_document(TEXT, 1, [Edit(path=("fields", path), value=value)])
    before, read = load_yaml(TEXT), load_yaml(after)
    before[1]["fields"][path] = value
    assert before == read


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    """A written file keeps its rights, a link stays a link, and nothing is left beside it."""
    file, link = tmp_path / "a.yaml", tmp_path / "b.yaml"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_whole(link, "new\r\n")
    assert (b"new\r\n", 0o640, True) == (file.read_bytes(), file.stat().st_mode & 0o777, link.is_symlink())
    assert {file, link} == set(tmp_path.iterdir())
