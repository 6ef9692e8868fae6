"""The artifacts of a graph by level: training workspace, predictions with it, what the predictions left."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from chapkit_flows.lineage.facts import Graph, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an artifact stands.

    Attributes:
        level: 0 training workspace, 1 prediction, 2 prediction workspace.
        parent: The artifact a level above that it was made from, or that its run made too; None if the graph has none.
    """

    id: str
    kind: str
    level: int
    parent: str | None

    def to_dict(self) -> dict[str, Any]:
        """The place as JSON values."""
        return asdict(self)


def hierarchy(graph: Graph) -> tuple[Place, ...]:
    """The artifacts that have a level, parents before children, otherwise in the order of the graph."""
    levels = {node.id: node for node in graph.nodes if node.level is not None}
    around: defaultdict[str, list[str]] = defaultdict(list)  # leveled artifacts by run
    makers: dict[str, str] = {}
    for edge in graph.edges:
        if edge.target in levels:
            makers[edge.target] = edge.source
            around[edge.source].append(edge.target)
        elif edge.source in levels:
            around[edge.target].append(edge.source)
    ordered = sorted(levels.values(), key=lambda node: node.level or 0)
    return tuple(
        Place(
            id=node.id, kind=node.kind or "", level=node.level or 0, parent=_find_parent(node, levels, makers, around)
        )
        for node in ordered
    )


def _find_parent(
    node: Node, levels: dict[str, Node], makers: dict[str, str], around: defaultdict[str, list[str]]
) -> str | None:
    near = around[makers[node.id]] if node.id in makers else []
    wanted = (node.level or 0) - 1
    return next((found for found in near if levels[found].level == wanted and found != node.id), None)
