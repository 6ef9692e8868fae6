"""Rules of configs, beside what pydantic checks: of one field or across fields, with a condition.

A rule stands in the model's code, as a method with `@rule`, or in a config document under `rules`. The rules of a
document are saved with the block, in its field `validation_rules`, so that a run that was started in Prefect's UI or
through its API is checked too. They are a part of the config's content: a config version says by which rules it was
checked, a restored version brings its rules back, and a config without rules has the digest that it had before there
were rules. Models do not see them: they stand in no `config.yml`.

All rules give diagnostics, wherever they are evaluated: when a document is planned or applied, by `validate`, and
before the model of a run is called. A finding of severity `error` stops all of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel

from chapkit_flows.configs.expressions import Expression, read_expression
from chapkit_flows.errors import InvalidConfig
from chapkit_flows.refs import Diagnostic, Severity

if TYPE_CHECKING:
    from chapkit_flows.configs.block import ModelConfig

F = TypeVar("F", bound=Callable[..., Any])

FIELD = "validation_rules"
KEYS = ("code", "check", "message", "when", "severity", "field")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MARK = "__chapkit_rule__"
# What the code of a rule raises when a value is not what it expects.
_CODE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of a document, read and checked.

    Attributes:
        check: What must be true.
        when: Of which configs it must be; None for all.
        message: What is wrong and what to do; `{n_lags}` stands for a value.
        field: What the finding is about. The rule may call its value `value`.
    """

    code: str
    check: Expression
    message: str
    when: Expression | None
    severity: Severity
    field: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A rule in code: what `@rule` was given."""

    code: str
    message: str
    when: Callable[[Any], bool] | None
    severity: Severity
    field: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A rule that cannot be used.

    Attributes:
        index: Of the rule among those of its document.
        key: The part of it that is wrong; None for the rule as a whole.
    """

    index: int
    key: str | None
    text: str


def rule(
    code: str,
    message: str,
    *,
    severity: Severity = "error",
    field: str | None = None,
    when: Callable[[Any], bool] | None = None,
) -> Callable[[F], F]:
    """Make a method of a config class a rule: it returns whether the config is good.

    Args:
        code: A stable name for programs, such as `too_many_lags`.
        message: What is wrong and what to do; `{n_lags}` stands for a value. The method may return a text instead of
            False, which then is the message.
        severity: `error` stops a run, `warning` and `info` are shown only.
        field: The field that it is about.
        when: Tells of a config whether the rule applies to it; default: to all.

    Raises:
        InvalidConfig: The code or the severity is not usable.

    Example:
        ```python
        class RainConfig(ModelConfig):
            n_lags: int = 3

            @rule("too_many_lags", "n_lags is {n_lags}; use 12 or fewer.", field="n_lags")
            def has_few_lags(self) -> bool:
                return self.n_lags <= 12
        ```
    """
    _check_code(code)
    _check_severity(severity)

    def mark(method: F) -> F:
        setattr(method, _MARK, Hook(code=code, message=message, when=when, severity=severity, field=field))
        return method

    return mark


@cache
def find_hooks(config_type: type[BaseModel]) -> Mapping[str, Hook]:
    """The rules in the code of a config class and of those it inherits from, by the names of their methods.

    Raises:
        InvalidConfig: Two have the same code, or one is about an unknown field.
    """
    fields = {known for name, field in config_type.model_fields.items() for known in (name, field.alias)}
    methods: dict[str, Any] = {}
    for parent in reversed(config_type.__mro__):
        methods |= vars(parent)
    hooks = {name: getattr(method, _MARK) for name, method in methods.items() if hasattr(method, _MARK)}
    codes: dict[str, str] = {}
    for name, hook in hooks.items():
        if hook.code in codes:
            raise InvalidConfig(
                f"{config_type.__name__}: the rules {codes[hook.code]} and {name} have the code {hook.code!r}. "
                "Give each a code of its own."
            )
        if hook.field is not None and hook.field not in fields:
            raise InvalidConfig(f"{config_type.__name__}: the rule {name} is about the unknown field {hook.field!r}.")
        codes[hook.code] = name
    return hooks


def check_rules(config: ModelConfig) -> list[Diagnostic]:
    """What the rules in the config's code, and those that it was saved with, find in it."""
    shown = _named(config, config.values())
    findings = [found for found in (_run_hook(config, name, hook, shown) for name, hook in _hooks(config)) if found]
    if not config.validation_rules:
        return findings
    rules, troubles = read_rules(config)
    findings += [
        Diagnostic.error(
            "invalid_rule", f"{trouble.text} Correct it where the config is kept.", f"config.{FIELD}.{trouble.index}"
        )
        for trouble in troubles
    ]
    values = _named(config, config.values(reveal=True))
    return findings + [found for found in (_run_rule(one, values, shown) for one in rules) if found]


def read_rules(config: ModelConfig) -> tuple[list[Rule], list[Trouble]]:
    """The rules that a config was saved with, and what is wrong with those that cannot be used."""
    names = set(_named(config, config.values()))
    codes = {hook.code: "in the model's code" for _, hook in _hooks(config)}
    rules: list[Rule] = []
    troubles: list[Trouble] = []
    for index, given in enumerate(config.validation_rules):
        try:
            found = _read_rule(given, names)
        except _Refused as error:
            troubles.append(Trouble(index=index, key=error.key, text=f"Rule {_name(index, given)}: {error}"))
            continue
        if found.code in codes:
            text = (
                f"Rule {index + 1}: the code {found.code!r} is that of a rule {codes[found.code]}. Give each its own."
            )
            troubles.append(Trouble(index=index, key="code", text=text))
            continue
        codes[found.code] = f"above, rule {index + 1}"
        rules.append(found)
    return rules, troubles


class _Refused(InvalidConfig):
    """A part of a rule is not usable."""

    def __init__(self, message: str, key: str | None = None) -> None:
        self.key = key
        super().__init__(message)


def _read_rule(given: Any, names: set[str]) -> Rule:
    if not isinstance(given, Mapping):
        raise _Refused(f"a rule is a mapping with the keys {', '.join(KEYS)}, not {given!r}.")
    unknown = [str(key) for key in given if key not in KEYS]
    if unknown:
        raise _Refused(f"unknown key {unknown[0]!r}. A rule has the keys {', '.join(KEYS)}.", unknown[0])
    missing = [key for key in ("code", "check", "message") if key not in given]
    if missing:
        raise _Refused(f"missing key {missing[0]!r}. A rule has the keys {', '.join(KEYS)}.")
    field, message = given.get("field"), given["message"]
    if field is not None and field not in names:
        raise _Refused(f"field is the unknown {field!r}. Known are {', '.join(sorted(names))}.", "field")
    if not isinstance(message, str) or not message.strip():
        raise _Refused(f"message is {message!r}. Say what is wrong and what to do.", "message")
    known = names | ({"value"} if field is not None else set())
    absent = [name for name in _PLACE.findall(message) if name not in known]
    if absent:
        raise _Refused(
            f"message names the unknown field {absent[0]!r}. Known are {', '.join(sorted(known))}.", "message"
        )
    try:
        _check_code(given["code"])
        severity = given.get("severity", "error")
        _check_severity(severity)
    except InvalidConfig as error:
        raise _Refused(str(error), "severity" if "severity" in str(error) else "code") from error
    when = given.get("when")
    return Rule(
        code=given["code"],
        check=_read_part(given["check"], "check", known),
        message=message,
        when=_read_part(when, "when", known) if when is not None else None,
        severity=severity,
        field=field,
    )


def _read_part(text: Any, key: str, names: set[str]) -> Expression:
    try:
        return read_expression(text, names)
    except InvalidConfig as error:
        raise _Refused(f"{key}: {error}", key) from error


def _run_rule(rule: Rule, values: Mapping[str, Any], shown: Mapping[str, Any]) -> Diagnostic | None:
    field = f"config.{rule.field}" if rule.field else None
    if rule.field is not None:
        values = {**values, "value": values[rule.field]}
        shown = {**shown, "value": shown[rule.field]}
    try:
        if (rule.when is not None and not rule.when.holds(values)) or rule.check.holds(values):
            return None
    except InvalidConfig as error:
        return _failed(rule.code, str(error), field)
    return Diagnostic(severity=rule.severity, code=rule.code, message=_fill(rule.message, shown), field=field)


def _run_hook(config: ModelConfig, name: str, hook: Hook, shown: Mapping[str, Any]) -> Diagnostic | None:
    field = f"config.{hook.field}" if hook.field else None
    try:
        if hook.when is not None and not hook.when(config):
            return None
        said = getattr(config, name)()
    except _CODE_ERRORS as error:
        # Not what it says: that may repeat a secret value.
        return _failed(hook.code, f"{name} raised {type(error).__name__}", field)
    if said is True:
        return None
    if said is not False and not isinstance(said, str):
        return _failed(hook.code, f"{name} returned {type(said).__name__}, not True, False or a text", field)
    message = said or _fill(hook.message, shown)
    return Diagnostic(severity=hook.severity, code=hook.code, message=message, field=field)


def _failed(code: str, text: str, field: str | None) -> Diagnostic:
    return Diagnostic.error(
        "rule_failed", f"The rule {code} cannot be evaluated: {text}. Correct the rule, or limit it with `when`.", field
    )


def _fill(message: str, values: Mapping[str, Any]) -> str:
    """The message with values in it, secrets masked; other braces stay."""
    return _PLACE.sub(lambda found: str(values.get(found[1], found[0])), message)


def _hooks(config: ModelConfig) -> Sequence[tuple[str, Hook]]:
    return list(find_hooks(type(config)).items())


def _named(config: ModelConfig, values: dict[str, Any]) -> dict[str, Any]:
    """The values by alias and by the name of the field, without the rules themselves."""
    written = {name: field.serialization_alias or name for name, field in type(config).model_fields.items()}
    names = {name: values[alias] for name, alias in written.items() if alias in values}
    return {key: value for key, value in (values | names).items() if key != FIELD}


def _name(index: int, given: Any) -> str:
    code = given.get("code") if isinstance(given, Mapping) else None
    return f"{index + 1} ({code})" if isinstance(code, str) else str(index + 1)


def _check_code(code: Any) -> None:
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise InvalidConfig(f"{code!r} is no code of a rule. Write lower case letters, digits and _.")


def _check_severity(severity: Any) -> None:
    if severity not in get_args(Severity):
        raise InvalidConfig(f"severity is {severity!r}. Write one of {', '.join(get_args(Severity))}.")
