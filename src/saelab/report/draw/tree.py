"""Trees, a row of the page each: parents above their children."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from saelab.figures import Node, Tree
from saelab.report.draw.panel import Panel
from saelab.report.draw.style import (
    FAINT,
    INK,
    WIDTH,
    colour,
    panels_of,
    picture_of,
    shades,
    tip,
    written,
)


@dataclass(frozen=True)
class _Placed:
    """A node with its place, and its parent's."""

    node: Node
    x: float
    depth: int
    parent: tuple[float, int] | None


def trees(panels: Sequence[Panel[Tree]], groups: Sequence[str], label: str) -> str:
    """Found edges are drawn, missed ones faint; a shade is a node's value in [0, 1]."""
    from matplotlib.collections import LineCollection

    del groups
    with panels_of(len(panels), 1.2, 3 * WIDTH) as axes:
        for ax, panel in zip(axes, panels, strict=True):
            placed = list(_places(panel.first.roots))
            width = max((point.x for point in placed), default=0.0) + 1.8
            deepest = max((point.depth for point in placed), default=0)
            for linked, ink, line, dashes in (
                (False, FAINT, 0.7, (0, (2, 2))),
                (True, colour(panel.row), 1.5, "-"),
            ):
                edges = [
                    [(point.parent[0], -point.parent[1]), (point.x, -point.depth)]
                    for point in placed
                    if point.parent is not None and (point.node.link is not None) is linked
                ]
                ax.add_collection(
                    LineCollection(edges, colors=ink, linewidths=line, linestyles=[dashes])
                )
            nodes = ax.scatter(
                [point.x for point in placed],
                [-point.depth for point in placed],
                c=[point.node.value or 0.0 for point in placed],
                s=min(30.0, 5500 / max(width, 1) ** 1.35),
                cmap=shades(diverging=False),
                vmin=0,
                vmax=1,
                edgecolors=INK,
                linewidths=0.6,
                zorder=3,
            )
            tip(nodes, *(_said(point.node) for point in placed))
            counts = panel.first.counts
            ax.set_title(f"{panel.title}: {counts}" if counts else panel.title)
            ax.set(xlim=(-1.2, width), ylim=(-deepest - 0.35, 0.35), xticks=[], yticks=[])
            if deepest == 1:
                ax.set_yticks([0, -1], ["parents", "children"])
            ax.tick_params(length=0)
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
        return picture_of(axes, label, "tree")


def _said(node: Node) -> str:
    return f"{node.label}: {'none' if node.value is None else written(node.value)}"


def _places(roots: Sequence[Node]) -> Iterator[_Placed]:
    """Leaves side by side, a parent over the middle of its children, a gap between trees."""
    at = 0.0
    for root in roots:
        placed = _subtree(root, at, 0)
        at = max(point.x for point in placed) + 1.8
        yield from placed


def _subtree(node: Node, left: float, depth: int) -> list[_Placed]:
    """The node first, with what is below it."""
    below: list[list[_Placed]] = []
    at = left
    for child in node.children:
        below.append(_subtree(child, at, depth + 1))
        at = max(point.x for point in below[-1]) + 1
    x = (below[0][0].x + below[-1][0].x) / 2 if below else left
    whole = [_Placed(node, x, depth, None)]
    for head, *others in below:
        whole += [replace(head, parent=(x, depth)), *others]
    return whole
