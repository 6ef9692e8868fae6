"""What differs between two contents of configs: where, from what, to what. Plain JSON values, no framework.

Values differ if their JSON texts do: 1, 1.0, "1" and true are four values. Lists are compared by their items: an item
that is only elsewhere in the list is moved, not removed and added.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Literal

Kind = Literal["added", "removed", "changed", "moved"]
Path = tuple[str | int, ...]
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_TYPES = {bool: "true/false", int: "whole number", float: "number", str: "text", list: "list", dict: "mapping"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference.

    Attributes:
        path: Where. Of what was removed, and of a move, in the first content; else in the second.
        before: The value in the first content; None if it was added.
        after: The value in the second content; None if it was removed.
        to: Of a move: the place in the second content.
    """

    path: Path
    kind: Kind
    before: Any = None
    after: Any = None
    to: Path | None = None

    @property
    def place(self) -> str:
        """The path as it is written: `weights.north[2].share`."""
        return write_path(self.path)

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON values, without what it has not."""
        found: dict[str, Any] = {"path": self.place, "kind": self.kind}
        if self.kind in ("removed", "changed"):
            found["before"] = self.before
        if self.kind in ("added", "changed"):
            found["after"] = self.after
        if self.kind == "changed" and type(self.before) is not type(self.after):
            found["types"] = [type_name(self.before), type_name(self.after)]
        if self.to is not None:
            found |= {"to": write_path(self.to), "value": self.after}
        return found


@dataclass(frozen=True, slots=True)
class _Key:
    """A value by its JSON text, so that 1 and true differ and lists can be looked up."""

    value: Any = field(compare=False, hash=False)
    text: str

    @classmethod
    def of(cls, value: Any) -> _Key:
        return cls(value, json.dumps(value, sort_keys=True))


def diff(before: Any, after: Any) -> list[Difference]:
    """What differs, in the order of the first content; `patch` applied to the first gives the second."""
    return list(_diff(before, after, ()))


def _diff(before: Any, after: Any, path: Path) -> Iterator[Difference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _diff_mappings(before, after, path)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _diff_lists(before, after, path)
    elif _Key.of(before) != _Key.of(after):
        yield Difference(path=path, kind="changed", before=before, after=after)


def _diff_mappings(before: Mapping[str, Any], after: Mapping[str, Any], path: Path) -> Iterator[Difference]:
    for key in before:
        if key in after:
            yield from _diff(before[key], after[key], (*path, key))
        else:
            yield Difference(path=(*path, key), kind="removed", before=before[key])
    for key in after:
        if key not in before:
            yield Difference(path=(*path, key), kind="added", after=after[key])


def _diff_lists(before: list[Any], after: list[Any], path: Path) -> Iterator[Difference]:
    """Removals and moves name places in the first list, the others places in the second."""
    old, new = list(map(_Key.of, before)), list(map(_Key.of, after))
    gone: list[int] = []
    come: list[int] = []
    facing: set[int] = set()
    for tag, first, end, start, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            gone += range(first, end)
            come += range(start, stop)
            facing |= set(range(first, end)) & set(range(start, stop))
    moved = _find_moved(old, new, gone, come)
    gone = [index for index in gone if index not in moved]
    come = [index for index in come if index not in moved.values()]
    # What stands between the same neighbours was changed, not replaced.
    facing &= set(gone) & set(come)
    same = [index for index in gone if index in facing and _are_alike(before[index], after[index])]
    for index in gone:
        if index in same:
            yield from _diff(before[index], after[index], (*path, index))
        else:
            yield Difference(path=(*path, index), kind="removed", before=before[index])
    for origin, target in moved.items():
        yield Difference(path=(*path, origin), kind="moved", after=after[target], to=(*path, target))
    for index in come:
        if index not in same:
            yield Difference(path=(*path, index), kind="added", after=after[index])


def _find_moved(old: Sequence[_Key], new: Sequence[_Key], gone: list[int], come: list[int]) -> dict[int, int]:
    """The new place of each item that left its place and came elsewhere."""
    places: dict[_Key, list[int]] = {}
    for index in come:
        places.setdefault(new[index], []).append(index)
    return {index: places[old[index]].pop(0) for index in gone if places.get(old[index])}


def _are_alike(before: Any, after: Any) -> bool:
    """Whether one value may have become the other: two mappings, two lists, or two single values."""
    kinds = [dict if isinstance(one, Mapping) else list if isinstance(one, list) else None for one in (before, after)]
    return kinds[0] == kinds[1]


def patch(before: Any, differences: Iterable[Difference]) -> Any:
    """The second content, from the first and what differs."""
    by_parent: dict[Path, list[Difference]] = {}
    for one in differences:
        if not one.path:
            return one.after
        by_parent.setdefault(one.path[:-1], []).append(one)
    return _patch(before, by_parent, ())


def _patch(value: Any, by_parent: Mapping[Path, list[Difference]], path: Path) -> Any:
    here = by_parent.get(path, [])
    changed = {one.path[-1]: one.after for one in here if one.kind == "changed"}
    if isinstance(value, Mapping):
        gone = {one.path[-1] for one in here if one.kind == "removed"}
        kept = {key: _patch(item, by_parent, (*path, key)) for key, item in value.items() if key not in gone}
        return kept | changed | {one.path[-1]: one.after for one in here if one.kind == "added"}
    if not isinstance(value, list):
        return value
    items = [changed[i] if i in changed else _patch(item, by_parent, (*path, i)) for i, item in enumerate(value)]
    placed = {one.path[-1]: one.after for one in here if one.kind == "added"}
    placed |= {one.to[-1]: one.after for one in here if one.to is not None}
    left = {one.path[-1] for one in here if one.kind in ("removed", "moved")}
    staying = iter([item for index, item in enumerate(items) if index not in left])
    count = len(items) - len(left) + len(placed)
    return [placed[index] if index in placed else next(staying) for index in range(count)]


def write_path(path: Path) -> str:
    """A path as text: `a.b[2].c`; a key with other letters in quotes, as in `a["x.y"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text or "(all)"


def type_name(value: Any) -> str:
    """The type of a value, for people."""
    return "nothing" if value is None else _TYPES.get(type(value), type(value).__name__)


def write_value(value: Any) -> str:
    """A value as JSON; one number, text or true/false can be told from another by it."""
    return json.dumps(value, ensure_ascii=False)


def describe(one: Difference) -> str:
    """A difference in one line."""
    if one.kind == "moved":
        return f"> {one.place}: {write_value(one.after)} moved to {write_path(one.to or ())}"
    if one.kind == "added":
        return f"+ {one.place}: {write_value(one.after)}"
    if one.kind == "removed":
        return f"- {one.place}: {write_value(one.before)}"
    types = "" if type(one.before) is type(one.after) else f" ({type_name(one.before)} → {type_name(one.after)})"
    return f"~ {one.place}: {write_value(one.before)} → {write_value(one.after)}{types}"


def markdown(differences: Sequence[Difference], left: str, right: str) -> str:
    """A table of the differences, for a pull request."""
    if not differences:
        return f"`{left}` and `{right}` are the same."
    rows = [f"| | path | {_cell(left)} | {_cell(right)} |", "|---|---|---|---|"]
    for one in differences:
        before = "" if one.kind == "added" else one.after if one.kind == "moved" else one.before
        first = "" if one.kind == "added" else _cell(write_value(before))
        second = "" if one.kind == "removed" else _cell(write_value(one.after))
        if one.to is not None:
            first, second = f"at {_cell(one.place)}", f"at {_cell(write_path(one.to))}: {second}"
        rows.append(f"| {one.kind} | {_cell(one.place)} | {first} | {second} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    """A code span that a table of GitHub's can hold, whatever is in it."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    inner = text.replace("|", "\\|").replace("\n", " ")
    return f"{fence} {inner} {fence}" if "`" in text else f"{fence}{inner}{fence}"
