"""Changing single values in the text of a YAML file: everything else in it stays as it was written."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.util import load_yaml_guess_indent

from chapkit_flows.errors import ConfigError

REMOVED: Any = object()
"""As a value: the key goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A new value at a path in a document."""

    path: tuple[str, ...]
    value: Any


def edit_document(text: str, index: int, edits: Sequence[Edit]) -> str:
    """The text with other values in one of its documents.

    Where single values take the place of single values, nothing but their characters changes. Where keys or lists come
    or go, the document is written anew, with its comments and its order; the others of the file stay as they are.

    Raises:
        ConfigError: The document uses anchors: a value may stand for several.
    """
    start, end = _span(text, index)
    part = text[start:end]
    if _has_anchors(part):
        raise ConfigError(
            "it uses anchors (&, *), so that one value may stand for several. Change it by hand: "
            + "; ".join(
                f"{'.'.join(edit.path)} is now {'gone' if edit.value is REMOVED else edit.value!r}" for edit in edits
            )
        )
    changed = _replace_scalars(part, edits)
    return text[:start] + (_rewrite(part, edits) if changed is None else changed) + text[end:]


def _span(text: str, index: int) -> tuple[int, int]:
    """Where the content of a document starts, after its `---`, and where the next begins."""
    spans: list[tuple[int, int]] = []
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.DocumentStartEvent):
            assert event.start_mark is not None and event.end_mark is not None
            start = event.start_mark.index
            spans.append((start, event.end_mark.index if event.explicit else start))
    begin = spans[index][1] if index or spans[0][0] != spans[0][1] else 0
    return begin, spans[index + 1][0] if index + 1 < len(spans) else len(text)


def _has_anchors(text: str) -> bool:
    return any(getattr(event, "anchor", None) for event in yaml.parse(text, yaml.SafeLoader))


def _replace_scalars(text: str, edits: Sequence[Edit]) -> str | None:
    """The text with other scalars; None if an edit is more than that."""
    root = yaml.compose(text, yaml.SafeLoader)
    found = [(_find(root, edit.path), edit.value) for edit in edits]
    for node, value in sorted(found, key=lambda item: item[0].start_mark.index if item[0] else 0, reverse=True):
        simple = isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">")
        if not simple or value is REMOVED or isinstance(value, dict | list) or "\n" in str(value):
            return None
        assert isinstance(node, yaml.ScalarNode)
        before, after = node.start_mark.index, node.end_mark.index
        written = _write_scalar(value, node.style)
        text = text[:before] + (f" {written}" if before == after else written) + text[after:]
    return text


def _find(node: yaml.Node | None, path: tuple[str, ...]) -> yaml.Node | None:
    for key in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for name, value in node.value if name.value == key), None)
    return node


def _write_scalar(value: Any, style: str | None) -> str:
    """A scalar as it may stand in a block and within brackets, quoted as the one before it was."""
    quoted = style if isinstance(value, str) and style in ("'", '"') else None
    written = yaml.safe_dump(
        [value], default_flow_style=True, default_style=quoted, allow_unicode=True, width=float("inf")
    )
    return str(written).strip()[1:-1]


def _rewrite(text: str, edits: Sequence[Edit]) -> str:
    writer = YAML()
    writer.preserve_quotes = True
    writer.width = 1 << 20
    ends = "\r\n" if "\r\n" in text else "\n"
    _, indent, offset = load_yaml_guess_indent(text)
    writer.indent(mapping=indent or 2, sequence=(offset or 0) + 2, offset=offset or 0)
    content = writer.load(text)
    for edit in edits:
        _set(content, edit)
    sink = io.StringIO()
    writer.dump(content, sink)
    written = sink.getvalue().replace("\r\n", "\n").replace("\n", ends)
    # After `---` there is the end of that line, which is no part of the content.
    lead = text[: len(text) - len(text.lstrip("\r\n"))]
    return lead + written.lstrip("\r\n")


def _set(content: Any, edit: Edit) -> None:
    *parents, last = edit.path
    for key in parents:
        if not isinstance(content.get(key), dict):
            content[key] = CommentedMap()
        content = content[key]
    if edit.value is REMOVED:
        content.pop(last, None)
    elif isinstance(content.get(last), list) and isinstance(edit.value, list):
        content[last][:] = edit.value  # in place: brackets stay brackets
    else:
        content[last] = edit.value


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
