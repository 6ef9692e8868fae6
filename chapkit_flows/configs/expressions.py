"""Expressions of rules: a small part of Python's, which cannot reach anything but the values it is given.

Allowed are `and or not`, comparisons with `in`, arithmetic on numbers, `x if c else y`, lists, `value["key"]` and the
functions of `FUNCTIONS`. There are no attributes, no calls of anything else, no names but the given ones. All of that
is checked when an expression is read, so that only values can make its evaluation fail.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from simpleeval import EvalWithCompoundTypes, InvalidExpression

from chapkit_flows.errors import InvalidConfig

MOST_LETTERS = 500
MOST_PARTS = 200
_LARGEST_POWER = 64
_LARGEST_BASE = 1e6

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "ends_with": lambda text, end: str(text).endswith(end),
    "len": len,
    "lower": lambda text: str(text).lower(),
    "max": max,
    "min": min,
    "round": round,
    "starts_with": lambda text, start: str(text).startswith(start),
    "sum": sum,
}
_TRUTHS = ("all", "any", "ends_with", "starts_with")


def _on_numbers(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    # Texts and lists can be multiplied until the memory is full.
    def calculate(left: Any, right: Any) -> Any:
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise TypeError("only numbers can be calculated with")
        return function(left, right)

    return calculate


def _power(base: float, exponent: float) -> Any:
    if abs(base) > _LARGEST_BASE or abs(exponent) > _LARGEST_POWER:
        raise ArithmeticError(f"a power may be at most {_LARGEST_BASE:g} ** {_LARGEST_POWER}")
    return base**exponent


_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _on_numbers(operator.add),
    ast.Sub: _on_numbers(operator.sub),
    ast.Mult: _on_numbers(operator.mul),
    ast.Div: _on_numbers(operator.truediv),
    ast.FloorDiv: _on_numbers(operator.floordiv),
    ast.Mod: _on_numbers(operator.mod),
    ast.Pow: _on_numbers(_power),
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Gt: operator.gt,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.LtE: operator.le,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
}
_PARTS = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.BinOp, ast.Compare, ast.IfExp, ast.Call, ast.Name),
    *(ast.Load, ast.Constant, ast.Subscript, ast.List, ast.Tuple, *_OPERATORS),
)
_SIGNS = {
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.Invert: "~", ast.LShift: "<<", ast.RShift: ">>",
    ast.MatMult: "@", ast.Is: "is", ast.IsNot: "is not", ast.UAdd: "+", ast.Attribute: ".", ast.Lambda: "lambda",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """An expression that was checked.

    Attributes:
        names: Of the values that it looks at.
    """

    text: str
    tree: ast.expr
    names: frozenset[str]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true of some values.

        Raises:
            InvalidConfig: It is neither true nor false of them, or cannot be evaluated.
        """
        evaluator = EvalWithCompoundTypes(operators=dict(_OPERATORS), functions=dict(FUNCTIONS), names=dict(values))
        try:
            result = evaluator.eval(self.text, previously_parsed=self.tree)
        except (InvalidExpression, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise InvalidConfig(f"`{self.text}` cannot be evaluated: {type(error).__name__}: {error}") from error
        if not isinstance(result, bool):
            raise InvalidConfig(f"`{self.text}` is {type(result).__name__}, not true or false. Compare it: {_HOW}")
        return result


_HOW = "write for example n_lags > 0"


def read_expression(text: Any, names: Collection[str]) -> Expression:
    """Read and check an expression.

    Raises:
        InvalidConfig: It is none, has something that is not allowed or unknown, or can be neither true nor false.
    """
    if isinstance(text, bool):
        text = str(text)  # YAML's true
    if not isinstance(text, str) or not text.strip():
        raise InvalidConfig(f"{text!r} is no expression. Write text, for example: n_lags <= 12")
    if len(text) > MOST_LETTERS:
        raise InvalidConfig(f"an expression of {len(text)} letters is too long; {MOST_LETTERS} are allowed.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.msg if isinstance(error, SyntaxError) else error
        raise InvalidConfig(f"`{text}` is no expression: {said}. Write for example: n_lags <= 12") from error
    parts = list(ast.walk(tree))
    if len(parts) > MOST_PARTS:
        raise InvalidConfig(f"`{text}` has too many parts: {len(parts)}; {MOST_PARTS} are allowed. Split the rule.")
    for part in parts:
        _check_part(part, text)
    called = {id(part.func) for part in parts if isinstance(part, ast.Call)}
    used = {part.id for part in parts if isinstance(part, ast.Name) and id(part) not in called}
    unknown = sorted(used - set(names))
    if unknown:
        raise InvalidConfig(f"`{text}` names the unknown field {unknown[0]!r}. Known are {', '.join(sorted(names))}.")
    if not _may_be_truth(tree.body):
        raise InvalidConfig(f"`{text}` can be neither true nor false. Compare it: {_HOW}")
    return Expression(text=text, tree=tree.body, names=frozenset(used))


def _check_part(part: ast.AST, text: str) -> None:
    if isinstance(part, ast.Attribute):
        raise InvalidConfig(f'`{text}` looks into a value with a dot. Write weights["a"] for a part of a value.')
    if not isinstance(part, _PARTS):
        sign = _SIGNS.get(type(part))
        what = f"the operator {sign!r}" if sign else f"a part that is not allowed ({type(part).__name__})"
        raise InvalidConfig(f"`{text}` has {what}. Use and, or, not, comparisons, in, + - * / // % ** and functions.")
    if isinstance(part, ast.Call):
        name = part.func.id if isinstance(part.func, ast.Name) else ast.unparse(part.func)
        if not isinstance(part.func, ast.Name) or name not in FUNCTIONS:
            raise InvalidConfig(f"`{text}` calls the unknown function {name!r}. There are {', '.join(FUNCTIONS)}.")
        if part.keywords:
            raise InvalidConfig(f"`{text}` calls {name} with a named argument. Give the value alone.")
    if isinstance(part, ast.Constant) and not isinstance(part.value, str | int | float | None):
        raise InvalidConfig(f"`{text}` holds {part.value!r}. Write text, numbers, True, False or None.")


def _may_be_truth(part: ast.expr) -> bool:
    """Whether the result may be true or false; a field may hold either."""
    if isinstance(part, ast.BoolOp):
        return all(map(_may_be_truth, part.values))
    if isinstance(part, ast.IfExp):
        return _may_be_truth(part.body) and _may_be_truth(part.orelse)
    if isinstance(part, ast.UnaryOp):
        return isinstance(part.op, ast.Not)
    if isinstance(part, ast.Call):
        return isinstance(part.func, ast.Name) and part.func.id in _TRUTHS
    return isinstance(part, ast.Compare | ast.Name | ast.Subscript) or (
        isinstance(part, ast.Constant) and isinstance(part.value, bool)
    )
