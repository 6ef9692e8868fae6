"""GitHub markdown and HTML that both of Prefect's UIs read well."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any


def digits(value: Any) -> str:
    """Three significant digits, and never fewer than the whole part has: `0.00123`, `12.3`, `12345`; a dash for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def folded(title: str, content: str) -> str:
    """A part that opens on a click, all of it HTML: the first UI ends it at an empty line, and so before markdown."""
    return f"<details><summary>{title}</summary>{content}</details>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of markdown cells."""
    lines = [head, ["---"] * len(head), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    # The first UI has no style for such tables: without the padding, columns touch.
    return f'<table cellpadding="5"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def code(text: str) -> str:
    """Free text as it is, in a code span: fenced by more backticks than it has in a row."""
    line = one_line(text)
    longest = max((len(list(run)) for mark, run in groupby(line) if mark == "`"), default=0)
    return f"{'`' * (longest + 1)} {line} {'`' * (longest + 1)}" if longest else f"`{line}`"


def plain(text: str) -> str:
    """Free text outside a code span, in which nothing is markup."""
    # The first UI shows a backslash in the text of a link; within a word an underscore needs none.
    return re.sub(r"([\\`*\[\]<>&~#]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def cell(text: str) -> str:
    """A cell of a markdown table, on one line."""
    return one_line(text).replace("|", "\\|")


def one_line(text: str) -> str:
    """The text without line breaks."""
    return " ".join(text.splitlines())
