"""The command that shows what made a thing, and what was made from it."""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from chapkit_flows.cli.output import print_json, print_line, say, when
from chapkit_flows.errors import ArtifactNotFound, DataError, InvalidId
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Cursor, Graph, GraphEdge, Newer, Node, Reading
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.levels import hierarchy
from chapkit_flows.lineage.query import list_artifacts
from chapkit_flows.lineage.readings import readings
from chapkit_flows.refs import check_id
from chapkit_flows.resources import open_facts

_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}")
_MOST_CURSORS = 3
_MOST_REASONS = 10


def show_lineage(options: argparse.Namespace) -> int:
    """Print what made a thing, and what was made from it."""
    up, down = not options.down, not options.up
    if options.before is not None and up and down:
        raise InvalidId("--before goes on in one direction. Add --up or --down, as the page before printed it.")
    database = open_facts()
    start = Cursor(node=find_start(database, options.id), heading="up" if up else "down", before=options.before)
    graph = lineage(database, start, up=up, down=down, depth=options.depth, limit=options.limit)
    if options.json:
        print_json(
            graph.to_dict() | ({"levels": [place.to_dict() for place in hierarchy(graph)]} if options.levels else {})
        )
        return 0
    console = Console(width=None if sys.stdout.isatty() else 200)
    if options.levels:
        trees = _draw_levels(graph)
    else:
        drawn = [_tree(graph, upward=True, title="made from")] if up else []
        drawn += [_tree(graph, upward=False, title="used for")] if down else []
        trees = [tree for tree in drawn if tree.children] or drawn[:1]
    for tree in trees:
        console.print(tree)
    _print_reasons(graph)
    _print_cursors(graph, options)
    return 0


def find_start(database: Database, text: str) -> str:
    """The id of a run or an artifact that a user names by id or digest, by a file, or by the URI it was read from.

    Raises:
        ArtifactNotFound: Nothing of that digest, file or URI is recorded.
        InvalidId: It is none of these.
    """
    if _DIGEST.fullmatch(text):
        return _find_content(database, text if ":" in text else f"sha256:{text}", text)
    try:
        return check_id(text)
    except InvalidId as error:
        past = readings(database, text)
        found = _find_file(database, Path(text), past) or next((one.artifact_id for one in past), None)
        if found is None:
            raise InvalidId(
                f"{text!r} is no id, no digest, and no file or URL that a run has read. "
                "Look for what there is: chapkit-flows artifacts list"
            ) from error
        others = [one for one in dict.fromkeys(one.artifact_id for one in past) if one != found]
        if others:
            say(f"Runs have read other data from {text} too: {', '.join(others[:_MOST_CURSORS])}")
        return found


def _find_file(database: Database, path: Path, past: Sequence[Reading]) -> str | None:
    """What has the content of a file; None if that is not recorded, but an earlier content of the file is."""
    if not path.is_file():
        return None
    digest = _hash(path)
    known = list_artifacts(database, digest=digest, limit=1)
    if not known and not past:
        _find_content(database, digest, str(path))
    if not known:
        say(f"{path} has changed since it was read last, {when(past[0].read_at)}: this is about what it was then.")
    return known[0].id if known else None


def _find_content(database: Database, digest: str, named: str) -> str:
    found = list_artifacts(database, digest=digest, limit=1)
    if not found:
        raise ArtifactNotFound(
            f"No run has read or made the content of {named} ({digest}). Look for it: chapkit-flows artifacts list"
        )
    return found[0].id


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check your rights.") from error


def _tree(graph: Graph, *, upward: bool, title: str) -> Tree:
    """The graph from its first node as a tree; what was shown above is not opened again."""
    start = graph.nodes[0]
    nodes = {node.id: node for node in graph.nodes}
    following: dict[str, list[GraphEdge]] = {}
    for edge in graph.edges:
        following.setdefault(edge.target if upward else edge.source, []).append(edge)
    root = Tree(f"{_label(start)} [bold]{title}[/bold]")
    seen = {start.id}
    open_branches = [(root, start.id)]
    while open_branches:
        branch, near = open_branches.pop()
        for edge in following.get(near, []):
            far = edge.source if upward else edge.target
            label = _label(nodes[far], edge, nodes[near])
            if far in seen:
                branch.add(f"{label} [dim](see above)[/dim]" if far in following else label)
                continue
            seen.add(far)
            open_branches.append((branch.add(label), far))
    return root


def _label(node: Node, edge: GraphEdge | None = None, near: Node | None = None) -> str:
    """`data: dataset training.csv 01J… sha256:…`, each part only where it says something new."""
    kind = (node.kind or node.type).replace("_", " ")
    parts = [] if node.type == "run" else [kind]
    own = node.label.removeprefix(kind).strip() if parts else node.label
    name = edge.name if edge is not None and edge.name and edge.source == node.id else own
    parts += [escape(name)] if name else []
    parts += [node.id] if not node.id.startswith("sha256:") else []
    parts += [f"[dim]level {node.level}[/dim]"] if node.level is not None else []
    parts += [f"[dim]{node.digest}[/dim]"] if node.digest else []
    if node.status in ("failed", "running", "cancelled", "crashed"):
        parts.append(f"[red]{node.status}[/red]")
    if node.stale:
        parts.append("[yellow]stale[/yellow]")
    if edge is None:
        return " ".join(parts)
    if node.type == "run" and near is not None and edge.name and not near.label.endswith(f" {edge.name}"):
        parts.append(f"[dim](read as {escape(edge.name)})[/dim]")
    said = (node.type, node.kind)
    return (f"[cyan]{edge.role}:[/cyan] " if edge.role not in said and node.type != "run" else "") + " ".join(parts)


def _draw_levels(graph: Graph) -> list[Tree]:
    """The artifacts that have a level, each below the one that it was made from or with."""
    nodes = {node.id: node for node in graph.nodes}
    trees: dict[str, Tree] = {}
    tops = []
    for place in hierarchy(graph):
        node = nodes[place.id]
        label = f"[cyan]level {place.level}[/cyan] {_label(node).replace(f' [dim]level {node.level}[/dim]', '')}"
        if place.parent is None:
            trees[place.id] = Tree(label)
            tops.append(trees[place.id])
        else:
            trees[place.id] = trees[place.parent].add(label)
    if not tops:
        tops.append(Tree(f"{_label(graph.nodes[0])}: no trained model, no prediction"))
    return tops


def _print_reasons(graph: Graph) -> None:
    reasons = list(dict.fromkeys(reason for node in graph.nodes for reason in node.stale))
    for reason in reasons[:_MOST_REASONS]:
        print_line(f"Stale: {reason_text(reason)}")
    if len(reasons) > _MOST_REASONS:
        print_line(f"and {len(reasons) - _MOST_REASONS} more reasons; --json has them all.")


def reason_text(reason: Newer) -> str:
    """Which URI has a newer version, and its id."""
    return f"the dataset {reason.dataset}: {reason.uri} has a newer version {reason.newer}, read {when(reason.read_at)}"


def _print_cursors(graph: Graph, options: argparse.Namespace) -> None:
    if not graph.more:
        return
    reason = "The graph is larger than --limit." if graph.truncated else "The graph goes on beyond --depth."
    print_line(f"\n{reason}")
    for cursor in graph.more[:_MOST_CURSORS]:
        print_line(f"More: {_command(cursor, options)}")
    if len(graph.more) > _MOST_CURSORS:
        print_line(f"and at {len(graph.more) - _MOST_CURSORS} more places; --json has them all, as `more`.")


def _command(cursor: Cursor, options: argparse.Namespace) -> str:
    parts: list[Any] = ["chapkit-flows", "lineage", cursor.node, f"--{cursor.heading}"]
    parts += ["--depth", options.depth] if options.depth else []
    parts += ["--limit", options.limit] if options.limit != 500 else []
    parts += ["--before", cursor.before] if cursor.before else []
    return shlex.join(map(str, parts))
