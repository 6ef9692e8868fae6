"""The filter language: `metric.crps < 20 and (tag.site = "A" or model = "rain")`, read into a tree.

    filter     = all {"or" all}
    all        = part {"and" part}
    part       = "not" part | "(" filter ")" | comparison | FLAG
    comparison = FIELD ("=" | "!=" | "<" | "<=" | ">" | ">=" | "like" | "~") VALUE
               | FIELD "in" "(" VALUE {"," VALUE} ")"

A value is a text in single or double quotes, a number, or a date or time as ISO 8601, in UTC unless it
says otherwise. A date is the whole day. `like` and `~` find a text within another, in the same case. A name
with other signs than letters, digits and `. _ - : /` is quoted: `metric."mean error"`. A flag, such as `stale`, is
true or not of what the rest finds: it stands beside other conditions with `and`, alone or after `not`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, NoReturn, TypeAlias

from chapkit_flows.errors import InvalidFilter

Type = Literal["text", "number", "time", "mixed", "flag"]
MOST_COMPARISONS = 50  # MySQL joins at most 61 tables
MOST_NESTED = 20  # the stack of SQLite's parser has 100 places
MOST_VALUES = 200  # SQLite's expressions are at most 1000 deep, and each day in a list is a step
_WORDS = {"and", "or", "not", "in", "like"}
_OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in", "~", "like")
_TOKEN = re.compile(
    r"""(?P<text>"[^"]*"|'[^']*')
    |(?P<word>[^\W\d]\w*(?:\.(?:"[^"\\]+"|'[^'\\]+'|[\w.:/-]+))?)
    |(?P<bare>[-+]?\d[\w.:+-]*)
    |(?P<sign>!=|<=|>=|[=<>~(),])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The fields that a filter may name: alone, and as `group.NAME`."""

    fields: Mapping[str, Type]
    groups: Mapping[str, Type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From a moment until before another: a day, or the microsecond that was named."""

    start: datetime
    end: datetime


Value: TypeAlias = "str | float | Span"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A field against a value, or for `in` against some."""

    field: str
    key: str | None = None
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Every:
    """All parts are true."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part is true."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part is not true: of a field that a thing does not have no comparison is."""

    part: Condition


@dataclass(frozen=True, slots=True)
class Flag:
    """It is so, or not: what no column says."""

    field: str
    value: bool = True


Condition: TypeAlias = "Comparison | Every | Either | Not | Flag"


def parse(expression: str, vocabulary: Vocabulary) -> Condition:
    """Read a filter.

    Raises:
        InvalidFilter: It is not one; the message points at the place.
    """
    parser = _Parser(expression=expression, vocabulary=vocabulary)
    parser.split()
    condition = parser.read_either(depth=0)
    if parser.ahead.kind != "end":
        parser.refuse("Here only `and`, `or` or the end can stand")
    return condition


def flags(condition: Condition) -> list[Flag]:
    """The flags of a filter: all of them must be so."""
    match condition:
        case Flag():
            return [condition]
        case Every(parts) | Either(parts):
            return [flag for part in parts for flag in flags(part)]
        case Not(part):
            return flags(part)
        case Comparison():
            return []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    text: str
    column: int


@dataclass(kw_only=True)
class _Parser:
    expression: str
    vocabulary: Vocabulary
    tokens: list[_Token] = field(default_factory=list)
    comparisons: int = 0

    @property
    def ahead(self) -> _Token:
        return self.tokens[0]

    def split(self) -> None:
        place = 0
        while (place := len(self.expression) - len(self.expression[place:].lstrip())) < len(self.expression):
            found = _TOKEN.match(self.expression, place)
            if found is None:
                quote = self.expression[place] in "\"'"
                self.refuse("The text is not closed" if quote else "This sign means nothing here", place)
            text, kind = found.group(), str(found.lastgroup)
            if kind == "word" and text.lower() in _WORDS:
                text, kind = text.lower(), "sign"
            self.tokens.append(_Token(kind=kind, text=text, column=place))
            place = found.end()
        self.tokens.append(_Token(kind="end", text="", column=len(self.expression)))

    def take(self, *signs: str) -> str | None:
        """The sign ahead, if it is one of these."""
        if self.ahead.kind != "sign" or self.ahead.text not in signs:
            return None
        return self.tokens.pop(0).text

    def read_either(self, depth: int) -> Condition:
        place = self.ahead.column
        parts = [self.read_every(depth)]
        while self.take("or"):
            parts.append(self.read_every(depth))
        if len(parts) == 1:
            return parts[0]
        self.refuse_flags(Either(tuple(parts)), place)
        return Either(tuple(parts))

    def read_every(self, depth: int) -> Condition:
        parts = [self.read_part(depth)]
        while self.take("and"):
            parts.append(self.read_part(depth))
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def read_part(self, depth: int) -> Condition:
        if depth > MOST_NESTED:
            self.refuse(f"Here it is nested more than {MOST_NESTED} deep")
        if self.take("not"):
            place, part = self.ahead.column, self.read_part(depth + 1)
            if isinstance(part, Flag):
                return replace(part, value=not part.value)
            self.refuse_flags(part, place)
            return Not(part)
        if not self.take("("):
            return self.read_comparison()
        condition = self.read_either(depth + 1)
        if not self.take(")"):
            self.refuse("Here a `)` is missing")
        return condition

    def refuse_flags(self, condition: Condition, place: int) -> None:
        """Each is tried on what the rest of the filter finds, which must not depend on it."""
        for flag in flags(condition):
            self.refuse(f"`{flag.field}` stands beside other conditions with `and` only, alone or after `not`", place)

    def read_comparison(self) -> Comparison | Flag:
        if self.ahead.kind != "word":
            self.refuse("Here the name of a field is missing")
        self.comparisons += 1
        if self.comparisons > MOST_COMPARISONS:
            self.refuse(f"Here are more than {MOST_COMPARISONS} comparisons")
        name, _, key = self.ahead.text.partition(".")
        known: Mapping[str, Type] = self.vocabulary.groups if key else self.vocabulary.fields
        if name not in known:
            fields = [*self.vocabulary.fields, *(f"{group}.NAME" for group in self.vocabulary.groups)]
            self.refuse(f"There is no field {self.ahead.text}; there are {', '.join(fields)}")
        del self.tokens[0]
        if known[name] == "flag":
            return Flag(name)
        operators = [sign for sign in _OPERATORS if known[name] in ("text", "mixed") or sign not in ("~", "like")]
        operator = self.take(*operators)
        if operator is None:
            self.refuse(f"Here one of {' '.join(operators)} is missing")
        values = self.read_list(known[name]) if operator == "in" else (self.read_value(known[name], operator),)
        operator = "~" if operator == "like" else operator
        return Comparison(field=name, key=key.strip("\"'") or None, operator=operator, values=values)

    def read_list(self, type_: Type) -> tuple[Value, ...]:
        if not self.take("("):
            self.refuse("Here a `(` is missing")
        values = [self.read_value(type_, "in")]
        while self.take(","):
            values.append(self.read_value(type_, "in"))
            if len(values) > MOST_VALUES:
                self.refuse(f"Here are more than {MOST_VALUES} values")
        if not self.take(")"):
            self.refuse("Here a `,` or a `)` is missing")
        return tuple(values)

    def read_value(self, type_: Type, operator: str) -> Value:
        token = self.ahead
        if token.kind == "word":
            self.refuse(f'A text stands in quotes: "{token.text}"')
        if token.kind not in ("text", "bare"):
            self.refuse("Here a value is missing")
        text = token.text[1:-1] if token.kind == "text" else token.text
        value = text if operator == "~" else _convert(text, type_, quoted=token.kind == "text")
        if value is None:
            self.refuse(f"Here a {'number' if type_ == 'number' else 'date or time as ISO 8601'} is needed")
        del self.tokens[0]
        return value

    def refuse(self, reason: str, place: int | None = None) -> NoReturn:
        place = self.ahead.column if place is None else place
        shown = re.sub(r"\s", " ", self.expression)
        raise InvalidFilter(f"The filter is wrong at column {place + 1}. {reason}.\n  {shown}\n  {' ' * place}^")


def _convert(text: str, type_: Type, *, quoted: bool) -> Value | None:
    """The value of a type; None if it is not of that type."""
    try:
        if type_ == "number" or (type_ == "mixed" and not quoted):
            return float(text)
        return _read_span(text) if type_ == "time" else text
    except (ValueError, OverflowError):
        return text if type_ == "mixed" else None


def _read_span(text: str) -> Span:
    moment = datetime.fromisoformat(text)
    start = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    length = timedelta(days=1) if len(text) <= 10 else timedelta(microseconds=1)
    return Span(start=start, end=start + length)
