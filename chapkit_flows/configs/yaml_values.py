"""Config values written as YAML, in a document or on the command line: only what JSON can hold as well."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from chapkit_flows.errors import InvalidConfig

# Prefect's own keys of a stored block: in a config they would choose another block type, or be lost.
RESERVED = ("block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous")
_MOST = 100_000  # values in one document; a few nested anchors make billions
_TAG = "tag:yaml.org,2002:"
_READ = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge")}
# PyYAML passes on what its constructors raise: ValueError for 2024-02-30 and 0b_, KeyError for !!bool x, and so on.
_CONSTRUCTOR_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may be built without libyaml


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlDocument:
    """One document of a YAML text.

    Attributes:
        value: What it says.
        line: Where it starts, from 1.
        lines: Where each key and list item stands, by its path.
    """

    value: Any
    line: int
    lines: Mapping[tuple[str, ...], int]

    def line_of(self, *path: object) -> int:
        """Where a value stands, or what it belongs to if it is not written."""
        keys = tuple(map(str, path))
        found = (self.lines.get(keys[:length]) for length in range(len(keys), 0, -1))
        return next((line for line in found if line is not None), self.line)


def load_yaml(text: str) -> list[Any]:
    """Read the documents in a YAML text.

    Raises:
        InvalidConfig: It is not YAML, or holds something that cannot be stored and found again.
    """
    return [document.value for document in read_yaml(text)]


def read_yaml(text: str, source: str = "") -> list[YamlDocument]:
    """Read the documents in a YAML text, with the lines that things stand in.

    Args:
        source: The name of the file; with it, each message starts with file and line.

    Raises:
        InvalidConfig: It is not YAML, has tags or duplicate keys, or holds something that cannot be stored and
            found again.
    """
    try:
        nodes = _compose(text)
    except yaml.MarkedYAMLError as error:
        raise _unreadable(text, source, error) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise _refusal(source, line, f"not readable YAML: it holds the character U+{error.character:04X}") from error
    except RecursionError as error:
        raise _refusal(source, 1, "not readable YAML: it is nested too deeply.") from error
    return [_Reading(source).read(node) for node in nodes if node is not None]


def _compose(text: str) -> list[yaml.Node]:
    """The nodes of a YAML text: read by libyaml, which is fast; what it refuses, PyYAML's own parser explains."""
    if "\t" not in text:  # of which libyaml takes some that PyYAML refuses
        with suppress(yaml.YAMLError, UnicodeError):
            return list(yaml.compose_all(text, _Loader))
    return list(yaml.compose_all(text, yaml.SafeLoader))


def check_keys(values: dict[Any, Any]) -> None:
    """Raise `InvalidConfig` if a key is not text, or one of Prefect's own."""
    for key in values:
        if not isinstance(key, str):
            raise InvalidConfig(f"the key {key!r} is not text. Put it in quotes.")
        if key in RESERVED:
            raise InvalidConfig(f"the key {key!r} belongs to Prefect. Use another name.")


class _Loader(Composer, _Parser, Resolver):  # type: ignore[misc, valid-type]
    """The parser of libyaml with the composer of PyYAML: its own ends the process where a text nests deeply."""

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        Composer.__init__(self)
        Resolver.__init__(self)


class _Reading:
    """Makes the value of one document from its nodes; checks them before anything is multiplied by its anchors."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._loader = yaml.SafeLoader("")
        self._counts: dict[int, int | None] = {}  # None for those around the present one
        self._lines: dict[tuple[str, ...], int] = {}

    def read(self, node: yaml.Node) -> YamlDocument:
        line = node.start_mark.line + 1
        try:
            self._count(node, "the document", ())
            value = self._loader.construct_document(node)
        except yaml.YAMLError as error:
            raise _refusal(self._source, line, f"not readable YAML: {error}") from error
        except RecursionError as error:
            raise _refusal(self._source, line, "not readable YAML: it is nested too deeply.") from error
        return YamlDocument(value=value, line=line, lines=self._lines)

    def _count(self, node: yaml.Node, place: str, path: tuple[str, ...]) -> int:
        """How many values stand in a node, written out."""
        if id(node) in self._counts:
            count = self._counts[id(node)]
            if count is None:
                raise self._refuse(node, f"{place} contains itself by an anchor. Write it without the anchor.")
            return count
        self._counts[id(node)] = None
        self._check_tag(node, place)
        count = 1
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node, place)
        for key, item, inner in self._items(node):
            further = (*path, str(key))
            self._lines[further] = item.start_mark.line + 1
            count += self._count(inner, repr(key) if isinstance(key, str) else place, further)
        if count > _MOST:
            raise self._refuse(node, f"{place} has more than {_MOST} values. A config must be smaller.")
        self._counts[id(node)] = count
        return count

    def _items(self, node: yaml.Node) -> Iterator[tuple[Any, yaml.Node, yaml.Node]]:
        """Key or index, the node to name the line of, and the node of the value."""
        if isinstance(node, yaml.SequenceNode):
            yield from ((index, item, item) for index, item in enumerate(node.value))
        if not isinstance(node, yaml.MappingNode):
            return
        seen: dict[Any, int] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._refuse(key_node, "not readable YAML: a key must be text, not a list or a mapping.")
            self._check_tag(key_node, "the key")
            key = self._check_scalar(key_node, "the key")
            if key in seen:
                raise self._refuse(
                    key_node, f"the key {key!r} stands twice, first in line {seen[key]}. Remove one of them."
                )
            seen[key] = key_node.start_mark.line + 1
            yield key, key_node, value

    def _check_tag(self, node: yaml.Node, place: str) -> None:
        if node.tag not in _READ:
            tag = node.tag.replace(_TAG, "!!")
            raise self._refuse(
                node, f"not readable YAML: {place} has the tag {tag}, and tags are not read. Write a plain value."
            )

    def _check_scalar(self, node: yaml.Node, place: str) -> Any:
        if node.tag == f"{_TAG}merge":
            return node.value
        try:
            value = self._loader.construct_object(node)
        except (yaml.YAMLError, *_CONSTRUCTOR_ERRORS) as error:
            raise self._refuse(node, f"not readable YAML: {error}") from error
        trouble = _trouble_with(value)
        if trouble:
            raise self._refuse(node, f"{place} {trouble}")
        return value

    def _refuse(self, node: yaml.Node, text: str) -> InvalidConfig:
        return _refusal(self._source, node.start_mark.line + 1, text)


def _trouble_with(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, which cannot be stored. Write a finite number, or text in quotes."
    if isinstance(value, str) and not _is_unicode(value):
        return f"holds half a character: {ascii(value)[:80]}. Write the whole character."
    if not isinstance(value, str | int | float | date | None):
        return f"is {type(value).__name__}, which cannot be stored. Write text, numbers or lists."
    return ""


def _unreadable(text: str, source: str, error: yaml.MarkedYAMLError) -> InvalidConfig:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    written = text.splitlines()[line - 1] if line <= len(text.splitlines()) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return _refusal(source, line, "not readable YAML: the line starts with a tab. Indent with spaces.")
    context = f" {error.context}" if error.context else ""
    return _refusal(source, line, f"not readable YAML: {error.problem or error}{context}. Correct it.")


def _refusal(source: str, line: int, text: str) -> InvalidConfig:
    return InvalidConfig(f"{source}:{line}: {text}" if source else text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
