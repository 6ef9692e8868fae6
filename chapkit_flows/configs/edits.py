"""Changing single values in the text of a YAML file: every other character in it stays as it was written."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from chapkit_flows.configs.yaml_values import read_yaml
from chapkit_flows.errors import ConfigError, InvalidConfig
from chapkit_flows.refs import canonical_json

REMOVED: Any = object()
"""As a value: the key goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A new value at a path in a document."""

    path: tuple[str, ...]
    value: Any


class _Patch(NamedTuple):
    """Characters that take the place of others."""

    start: int
    end: int
    text: str


def edit_document(text: str, index: int, edits: Sequence[Edit]) -> str:
    """The text with other values in one of its documents, and nothing else changed.

    Raises:
        ConfigError: The document is written in a way that does not allow that, such as with anchors.
    """
    root = list(yaml.compose_all(text, yaml.SafeLoader))[index]
    expected = copy.deepcopy(read_yaml(text)[index].value)
    patches: list[_Patch] = []
    for edit in edits:
        _set(expected, edit)
        patches += _Patcher(text).patch(root, edit)
    changed = text
    for patch in sorted(patches, key=lambda patch: patch.start)[::-1]:
        changed = changed[: patch.start] + patch.text + changed[patch.end :]
    if _has_anchors(text) or not _says(changed, index, expected):
        raise ConfigError(f"it is written in a way that cannot be changed here. Change it by hand: {_by_hand(edits)}")
    return changed


def _set(content: dict[str, Any], edit: Edit) -> None:
    *parents, last = edit.path
    for key in parents:
        if not isinstance(content.get(key), dict):
            content[key] = {}
        content = content[key]
    if edit.value is REMOVED:
        content.pop(last, None)
    else:
        content[last] = edit.value


def _says(text: str, index: int, expected: Any) -> bool:
    try:
        return canonical_json(read_yaml(text)[index].value) == canonical_json(expected)
    except (InvalidConfig, IndexError):
        return False


def _has_anchors(text: str) -> bool:
    """Whether a value may stand for several."""
    return any(getattr(event, "anchor", None) for event in yaml.parse(text, yaml.SafeLoader))


def _by_hand(edits: Sequence[Edit]) -> str:
    said = ((".".join(edit.path), "gone" if edit.value is REMOVED else _inline(edit.value)) for edit in edits)
    return "; ".join(f"{path} is now {value}" for path, value in said)


class _Patcher:
    """Finds the characters of a text that an edit is about."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"

    def patch(self, root: yaml.Node, edit: Edit) -> Iterator[_Patch]:
        node, value = root, edit.value
        for depth, key in enumerate(edit.path):
            entries = node.value if isinstance(node, yaml.MappingNode) else []
            found = next((entry for entry in entries if entry[0].value == key), None)
            last = depth == len(edit.path) - 1
            if found is None:
                if value is not REMOVED:
                    yield self._add(node, key, _wrapped(edit.path[depth + 1 :], value))
                return
            assert isinstance(node, yaml.MappingNode)
            if last and value is REMOVED:
                yield self._remove(node, [part for entry in entries for part in entry], entries.index(found) * 2, 2)
            elif last:
                yield from self._replace(found[0], found[1], value)
            elif not isinstance(found[1], yaml.MappingNode):
                yield from self._replace(found[0], found[1], _wrapped(edit.path[depth + 1 :], value))
                return
            node = found[1]

    def _replace(self, key: yaml.Node, node: yaml.Node, value: Any) -> Iterator[_Patch]:
        if isinstance(node, yaml.SequenceNode) and isinstance(value, list) and node.value and value:
            yield from self._replace_items(node, value)
        elif isinstance(node, yaml.CollectionNode) and not node.flow_style:
            yield _Patch(key.end_mark.index, self._end(node), f": {_inline(value)}")
        else:
            yield self._replace_whole(node, value)

    def _replace_whole(self, node: yaml.Node, value: Any) -> _Patch:
        start, end = node.start_mark.index, self._end(node)
        style = node.style if isinstance(node, yaml.ScalarNode) else None
        return _Patch(start, max(start, end), ("" if end > start else " ") + _inline(value, style))

    def _replace_items(self, node: yaml.SequenceNode, values: list[Any]) -> Iterator[_Patch]:
        """Only the items that differ change, come or go."""
        loader = yaml.SafeLoader("")
        before = [canonical_json(loader.construct_object(item, deep=True)) for item in node.value]
        matcher = SequenceMatcher(None, before, [canonical_json(value) for value in values], autojunk=False)
        for _, i1, i2, j1, j2 in (found for found in matcher.get_opcodes() if found[0] != "equal"):
            both = min(i2 - i1, j2 - j1)
            for item, value in zip(node.value[i1 : i1 + both], values[j1 : j1 + both], strict=True):
                yield self._replace_whole(item, value)
            for value in values[j1 + both : j2]:
                yield self._insert(node, node.value, i1 + both, _inline(value))
            if i1 + both < i2:
                yield self._remove(node, node.value, i1 + both, i2 - i1 - both)

    def _add(self, node: yaml.Node, key: str, value: Any) -> _Patch:
        entry = f"{_inline(key)}: {_inline(value)}"
        if not isinstance(node, yaml.MappingNode) or not node.value:
            start = node.start_mark.index
            return _Patch(start, max(start, self._end(node)), ("" if self._end(node) > start else " ") + f"{{{entry}}}")
        return self._insert(node, [part for pair in node.value for part in pair], len(node.value) * 2, entry)

    def _insert(self, node: yaml.CollectionNode, parts: list[yaml.Node], at: int, written: str) -> _Patch:
        """Put an entry before a part, or after the last one."""
        if node.flow_style:
            place = self._end(parts[at - 1]) if at else parts[0].start_mark.index
            return _Patch(place, place, f", {written}" if at else f"{written}, ")
        dash = "- " if isinstance(node, yaml.SequenceNode) else ""
        line = " " * node.start_mark.column + dash + written
        if at:
            place = self._line_end(self._end(parts[at - 1]))
            return _Patch(place, place, self._newline + line)
        place = self._line_start(parts[0].start_mark.index)
        return _Patch(place, place, line + self._newline)

    def _remove(self, node: yaml.CollectionNode, parts: list[yaml.Node], at: int, count: int) -> _Patch:
        if count == len(parts):
            # The indentation of the first entry would stay alone.
            return _Patch(node.start_mark.index, self._end(node), "{}" if isinstance(node, yaml.MappingNode) else "[]")
        start, end = parts[at].start_mark.index, self._end(parts[at + count - 1])
        if not node.flow_style:
            after = self._line_end(end)
            return _Patch(self._line_start(start), after + len(self._newline), "")
        if at + count < len(parts):
            return _Patch(start, parts[at + count].start_mark.index, "")
        return _Patch(self._end(parts[at - 1]), end, "")

    def _end(self, node: yaml.Node) -> int:
        """Where a value ends. PyYAML has a block end where the next thing begins, after all comments."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self._end(last[1] if isinstance(last, tuple) else last)
        end: int = node.end_mark.index
        while end > node.start_mark.index and self._text[end - 1].isspace():
            end -= 1
        return end

    def _line_end(self, place: int) -> int:
        end = self._text.find(self._newline, place)
        return len(self._text) if end < 0 else end

    def _line_start(self, place: int) -> int:
        return self._text.rfind("\n", 0, place) + 1


def _wrapped(path: Sequence[str], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _inline(value: Any, style: str | None = None) -> str:
    """A value on one line, as it may stand in a block and within brackets; text quoted as that before it was."""
    quoted = style if isinstance(value, str) and style in ("'", '"') else None
    written = yaml.safe_dump([value], default_flow_style=True, default_style=quoted, allow_unicode=True, width=1 << 30)
    return str(written).strip()[1:-1]


def write_whole(file: Path, text: str) -> None:
    """Write a file so that it is the old one or the new one at any moment.

    Raises:
        ConfigError: It cannot be written.
    """
    part = file.with_name(f".{file.name}.part")
    try:
        try:
            part.write_bytes(text.encode())
            if file.exists():
                shutil.copymode(file, part)
            part.replace(file.resolve())
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}. Check rights and space.") from error
