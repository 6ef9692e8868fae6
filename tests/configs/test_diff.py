"""What differs between two contents: found, told, and applied again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chapkit_flows.configs.diff import describe, diff, markdown, patch

# Threads of Prefect's client, which other tests have started, may draw random numbers meanwhile.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 2.5]) | st.sampled_from("ab1")
contents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("abc"), inner), max_leaves=12
)


def text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@settings(deadline=None)
@example([False, False, 0], [0, None])  # at the same place, but not between the same neighbours
@given(contents, contents)
def test_differences_applied_give_the_other(before: Any, after: Any) -> None:
    """What differs, applied to the first content, gives the second."""
    assert text(after) == text(patch(before, diff(before, after)))


@settings(deadline=None)
@given(contents, contents)
def test_only_equal_contents_have_no_difference(before: Any, after: Any) -> None:
    """There is a difference if and only if the JSON texts differ."""
    assert (text(before) == text(after)) == (diff(before, after) == [])


@settings(deadline=None)
@given(st.lists(scalars, max_size=8), st.randoms())
def test_order_alone_is_only_moves(items: list[Any], random: Any) -> None:
    """A list in another order has moves, and nothing else."""
    shuffled = random.sample(items, len(items))
    assert {"moved"} >= {one.kind for one in diff(items, shuffled)}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": {"b": [1, 2, {"c": 3}]}}, {"a": {"b": [1, 2, {"c": 4}]}}, ["~ a.b[2].c: 3 → 4"]),
        ({"a": 1}, {"a": 1.0}, ["~ a: 1 → 1.0 (whole number → number)"]),
        ({"a": 1}, {"a": "1"}, ['~ a: 1 → "1" (whole number → text)']),
        ({"a": 1}, {"a": True}, ["~ a: 1 → true (whole number → true/false)"]),
        ({"a": None}, {"a": []}, ["~ a: null → [] (nothing → list)"]),
        ({"a": None}, {}, ["- a: null"]),
        ({}, {"a": None}, ["+ a: null"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"l": ["x", "y", "z"]}, {"l": ["z", "x", "y"]}, ['> l[2]: "z" moved to l[0]']),
        ({"l": ["x", "y"]}, {"l": ["x", "w", "y"]}, ['+ l[1]: "w"']),
        ({"l": ["x", "y"]}, {"l": ["y"]}, ['- l[0]: "x"']),
        ({"l": [{"a": 1}, {"a": 2}]}, {"l": [{"a": 1}, {"a": 3}]}, ["~ l[1].a: 2 → 3"]),
        ({"x.y": {"ລາວ": 1}}, {"x.y": {"ລາວ": 2}}, ['~ ["x.y"]["ລາວ"]: 1 → 2']),
        ([1], {"a": 1}, ['~ (all): [1] → {"a": 1} (list → mapping)']),
    ],
)
def test_differences_are_told(before: Any, after: Any, expected: list[str]) -> None:
    """Each difference names its place, and says where only the type differs."""
    assert expected == [describe(one) for one in diff(before, after)]


def test_differences_as_json() -> None:
    """A difference has the keys that its kind needs."""
    found = [one.to_dict() for one in diff({"a": 1, "b": 0, "l": [1, 2]}, {"a": 1.0, "l": [2, 1], "c": 0})]
    assert [
        {"path": "a", "kind": "changed", "before": 1, "after": 1.0, "types": ["whole number", "number"]},
        {"path": "b", "kind": "removed", "before": 0},
        {"path": "l[1]", "kind": "moved", "to": "l[0]", "value": 2},
        {"path": "c", "kind": "added", "after": 0},
    ] == found


def test_table_holds_any_text() -> None:
    """A table of differences keeps its columns whatever the values are."""
    found = diff({"a": "x|y", "b": 1}, {"a": "`x`\n|", "c": [1]})
    lines = markdown(found, "rain-config/weekly@1", "file.yaml").splitlines()
    assert "| | path | `rain-config/weekly@1` | `file.yaml` |" == lines[0]
    assert ["changed", "removed", "added"] == [line.split(" | ")[0].strip("| ") for line in lines[2:]]
    assert "`a` and `b` are the same." == markdown([], "a", "b")
