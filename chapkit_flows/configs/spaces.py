"""The configs of a sweep: values of some fields of a config, one by one or from a range."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from chapkit_flows.configs.block import ModelConfig, secret_fields
from chapkit_flows.configs.versions import explain
from chapkit_flows.errors import InvalidConfig, InvalidSweep
from chapkit_flows.refs import canonical_json

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER}):({_NUMBER})(:log)?\s*")
_SHOWN = 60  # characters of a value


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """All numbers from a lower to an upper bound, both included.

    Attributes:
        is_log: Whether each order of magnitude is as likely as any other.
    """

    low: int | float
    high: int | float
    is_log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What the configs of a sweep are made of.

    Attributes:
        base: The config in which values are changed.
        choices: By field, as its alias, the values to try.
        ranges: By field the range to draw from.
    """

    base: ModelConfig
    choices: Mapping[str, tuple[Any, ...]]
    ranges: Mapping[str, Range]

    @property
    def size(self) -> int:
        """How many configs the choices make."""
        return math.prod(map(len, self.choices.values()))

    def grid(self) -> Iterator[dict[str, Any]]:
        """Each combination of the choices, the last field changing fastest."""
        for values in product(*self.choices.values()):
            yield dict(zip(self.choices, values, strict=True))

    def config(self, values: Mapping[str, Any]) -> ModelConfig:
        """The base with some values changed.

        Raises:
            InvalidConfig: The values do not fit together.
        """
        try:
            return change(self.base, values)
        except ValidationError as error:
            shown = ", ".join(f"{key} = {_shorten(value)}" for key, value in values.items())
            raise InvalidConfig(f"{shown}: {explain(error)}") from error


def read_space(base: ModelConfig, given: Mapping[str, Sequence[Any] | str]) -> Space:
    """Check the values of a sweep against the fields of a config.

    Args:
        base: The config in which they are changed.
        given: By field, named as in a config document, a list of values; or a range, such as `0.1:10:log`.

    Raises:
        InvalidSweep: A field is unknown, cannot be swept, or has no value; or a range is none.
        InvalidConfig: A value does not fit its field.
    """
    choices: dict[str, tuple[Any, ...]] = {}
    ranges: dict[str, Range] = {}
    for name, values in given.items():
        key = _key(base, name)
        if key in choices or key in ranges:
            raise InvalidSweep(f"{name}: the field is given twice. Give all its values at once.")
        if isinstance(values, str):
            ranges[key] = _read_range(base, key, values)
        elif not values:
            raise InvalidSweep(f"{name} has no values. Write them with commas between, such as {name}=1,2,3.")
        else:
            typed = [_typed(base, key, value) for value in values]
            choices[key] = tuple({canonical_json(value): value for value in typed}.values())
    return Space(base=base, choices=choices, ranges=ranges)


def is_range(text: str) -> bool:
    """Whether a text is written as a range."""
    return _RANGE.fullmatch(text) is not None


def change(base: ModelConfig, values: Mapping[str, Any]) -> ModelConfig:
    """A copy of a config with other values, by alias; its secrets are found where those of the base are.

    Raises:
        ValidationError: A value does not fit its field.
    """
    config = type(base).model_validate(base.values(reveal=True) | dict(values))
    config._block_document_name = base._block_document_name
    return config


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the values that are not the same in all contents of configs."""
    names = dict.fromkeys(name for content in configs for name in content)
    return [name for name in names if len({canonical_json(content.get(name)) for content in configs}) > 1]


def _key(base: ModelConfig, name: str) -> str:
    """The name under which `ModelConfig.values` has a field."""
    kind = type(base)
    fields = {
        known: field.serialization_alias or field.alias or known
        for known, field in kind.model_fields.items()
        if known != "additional_options"
    }
    field = next((known for known, key in fields.items() if name in (known, key)), None)
    if field is None and name in base.additional_options:
        return name
    if field is None:
        near = difflib.get_close_matches(name, [*fields.values(), *base.additional_options], n=1)
        meant = f"; did you mean {near[0]}?" if near else f". It has {', '.join(sorted(fields.values()))}."
        raise InvalidSweep(f"{_shorten(name)} is not a field of {kind.__name__}{meant}")
    if field in secret_fields(kind):
        raise InvalidSweep(f"{name} is a secret of {kind.__name__}: its values would not be recorded, so not compared.")
    if field == "prediction_periods":
        raise InvalidSweep(
            "prediction_periods cannot be swept: trials are compared on the same periods ahead. Set those with periods."
        )
    return fields[field]


def _typed(base: ModelConfig, key: str, value: Any) -> Any:
    """A value as its field takes it."""
    try:
        return change(base, {key: value}).values().get(key)
    except ValidationError as error:
        own = [
            item
            for item in error.errors(include_url=False)
            if item["loc"] and item["loc"][0] in (key, *_names(base, key))
        ]
        if not own:
            return value  # it does not fit the base's other values: with those of a trial it may
        found = "; ".join(str(item["msg"]) for item in own)
        raise InvalidConfig(f"{key} = {_shorten(value)} does not fit {type(base).__name__}: {found}.") from error


def _names(base: ModelConfig, key: str) -> list[str]:
    """The names of a field whose alias is known."""
    return [name for name, field in type(base).model_fields.items() if key in (field.serialization_alias, field.alias)]


def _read_range(base: ModelConfig, key: str, text: str) -> Range:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise InvalidSweep(
            f"{key}: {_shorten(text)} is neither a list nor a range. Write a range as 0.1:10 or 1:12:log."
        )
    is_log = match[3] is not None
    low, high = (_typed(base, key, _number(match[part])) for part in (1, 2))
    for bound in (low, high):
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise InvalidSweep(f"{key} takes no numbers, so it has no range. Write its values with commas between.")
    if low >= high:
        raise InvalidSweep(f"{key}: the range {text.strip()} is empty. Write the lower bound first.")
    if is_log and low <= 0:
        raise InvalidSweep(f"{key}: a range with log begins above 0, not at {low}.")
    return Range(low=low, high=high, is_log=is_log)


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
