"""The filter language: how it is read, and what is said of what is not in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chapkit_flows.errors import InvalidFilter
from chapkit_flows.lineage.conditions import ARTIFACTS, RUNS
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.filters import (
    MOST_COMPARISONS,
    MOST_NESTED,
    MOST_VALUES,
    Comparison,
    Condition,
    Either,
    Every,
    Flag,
    Not,
    parse,
)
from chapkit_flows.lineage.search import search_artifacts, search_runs

COMPARISONS = st.tuples(
    st.sampled_from(["id", "model", "started", "level", "tag", "tag.a", "metric.m", "param.p", "metadata.p"]),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~", "in", "in ('x',", ""]),
    st.sampled_from(["'x'", "7", "-1e999", "2026-01-31", "(2026-01-31, 7)", "('%')", "'\0'", ")"]),
).map(" ".join) | st.just("stale")
FILTERS = st.recursive(
    COMPARISONS,
    lambda parts: st.one_of(
        parts.map("not {}".format),
        st.tuples(parts, st.sampled_from(["and", "or"]), parts).map(lambda part: f"({' '.join(part)})"),
    ),
)


def has(field: str, *values: str | float, operator: str = "=", key: str | None = None) -> Comparison:
    return Comparison(field=field, key=key, operator=operator, values=values)


@pytest.mark.parametrize(
    ("expected", "expression"),
    [
        (
            Every(
                (
                    has("metric", 20.0, operator="<", key="crps"),
                    Either((has("tag", "A", key="site"), has("model", "rain"))),
                )
            ),
            'metric.crps < 20 and (tag.site = "A" or model = "rain")',
        ),
        (Either((has("id", "a"), Every((has("id", "b"), has("id", "c"))))), "id='a' or id='b' and id='c'"),
        (Every((Not(has("id", "a")), Not(Not(has("id", "b"))))), "NOT id='a' AND not (not id='b')"),
        (has("flow", "it's"), '\n flow\t= "it\'s" '),
        (has("tag", "a", "b", operator="in", key="a-b.c/d:1"), "tag.a-b.c/d:1 in ('a','b')"),
        (has("tag", "x", operator="~", key="two words"), "tag.'two words' like 'x'"),
        (has("metric", -1.5e-3, operator=">=", key="crps"), "metric.crps>=-1.5e-3"),
        (has("tag", "2024", key="year"), "tag.year = 2024"),
        (has("param", "2", 2.0, operator="in", key="n"), "param.n in ('2', 2)"),
        (has("tag", "order", key="or"), "tag.or = 'order'"),
        (Every((Flag("stale"), has("flow", "a"))), "stale and flow = 'a'"),
        (Every((has("flow", "a"), Flag("stale", False))), "flow = 'a' and not (not (not stale))"),
    ],
)
def test_reads(expected: Condition, expression: str) -> None:
    """`and` binds closer than `or`, names may have any case of word, and values keep their kind."""
    assert expected == parse(expression, RUNS)


@pytest.mark.parametrize(
    ("expression", "column", "reason"),
    [
        ("", 1, "name of a field is missing"),
        ("model = ", 9, "a value is missing"),
        ("model 'rain'", 7, "one of = != < <= > >= in ~ like is missing"),
        ("model == 'rain'", 8, "a value is missing"),
        ("model = rain", 9, 'A text stands in quotes: "rain"'),
        ("model = 'rain", 9, "The text is not closed"),
        ("flow = 'a' or stale", 1, "`stale` stands beside other conditions with `and` only"),
        ("flow = 'a' and not (stale and flow = 'b')", 20, "`stale` stands beside other conditions"),
        ("stale = 'a'", 7, "only `and`, `or` or the end"),
        ("model = 'a' model = 'b'", 13, "only `and`, `or` or the end"),
        ("modle = 'a'", 1, "no field modle; there are id, flow, model"),
        ("flow = 'a' and metrics.crps < 1", 16, "no field metrics.crps"),
        ("metric < 1", 1, "no field metric;"),
        ("metric.crps < 'low'", 15, "a number is needed"),
        ("metric.crps < 20and", 15, "a number is needed"),
        ("metric.crps ~ '1'", 13, "one of = != < <= > >= in is missing"),
        ("started > 'today'", 11, "a date or time as ISO 8601 is needed"),
        ("started > 2026-13-01", 11, "a date or time as ISO 8601 is needed"),
        ("started = 9999-12-31", 11, "a date or time as ISO 8601 is needed"),
        ("(model = 'a'", 13, "a `)` is missing"),
        ("model in 'a'", 10, "a `(` is missing"),
        ("model in ('a' 'b')", 15, "a `,` or a `)` is missing"),
        ("model = 'a' and and", 17, "name of a field is missing"),
        ("model = 'a' & model = 'b'", 13, "means nothing here"),
        ("model = 'a'; drop table lineage_run", 12, "means nothing here"),
        ("(" * 1000, MOST_NESTED + 2, f"more than {MOST_NESTED} deep"),
        ("not " * 1000, 4 * (MOST_NESTED + 1) + 1, f"more than {MOST_NESTED} deep"),
        ("tag='x' or " * 1000, 11 * MOST_COMPARISONS + 1, f"more than {MOST_COMPARISONS} comparisons"),
        (f"id in ({'1,' * 1000})", 8 + 2 * MOST_VALUES + 1, f"more than {MOST_VALUES} values"),
    ],
)
def test_points_at_what_is_wrong(expression: str, column: int, reason: str) -> None:
    """An error names the column and shows the expression with a caret below it."""
    with pytest.raises(InvalidFilter) as caught:
        parse(expression, RUNS)
    said, shown, caret = str(caught.value).split("\n")
    assert said.startswith(f"The filter is wrong at column {column}. ")
    assert reason in said
    assert (f"  {expression}", f"  {' ' * (column - 1)}^") == (shown, caret)


def test_fields_depend_on_what_is_searched() -> None:
    """Artifacts have other fields than runs."""
    assert has("level", 0.0) == parse("level = 0", ARTIFACTS)
    with pytest.raises(InvalidFilter, match="no field flow; there are id, kind"):
        parse("flow = 'train'", ARTIFACTS)


def test_expression_of_many_lines() -> None:
    """A filter of several lines is shown in one, so that the caret stands where it should."""
    with pytest.raises(InvalidFilter, match=r"  model =  oops\n           \^$"):
        parse("model =\n oops", RUNS)


@pytest.fixture(scope="module")
def empty() -> Iterator[Database]:
    database = open_database("sqlite://")
    yield database
    database.close()


@settings(deadline=None)  # a busy machine is no fault
@given(where=st.one_of(FILTERS, st.text()))
def test_any_text_is_a_filter_or_is_refused(empty: Database, where: str) -> None:
    """Whatever is written, the database accepts it or the language refuses it."""
    for search in (search_runs, search_artifacts):
        with suppress(InvalidFilter):
            assert [] == search(empty, where)
