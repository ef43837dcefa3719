"""Pictures of learned against true features, as SVG text: a panel a variant, the same bytes for the
same data.

Legend: F true features | L latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saelab.report.draw.style import INK, colour, figure_of, log_axis, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

# |cosine| 0 to 1; style.css shows the same scale
SHADES = ("#ffffff", "#9fcbe6", "#0072b2", "#00263f")
# of features, not variants
GROUPS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#5B4B8A", "#56B4E9", "#7F7F7F")
COLUMNS = 3
LETTER = 0.0225  # width of a letter of a group's name, as a share of a panel's
MISSED = "#b9c1c7"


@dataclass(frozen=True)
class Heat:
    """|Cosine| of one SAE's latents and the true features."""

    title: str
    per_cent: Sequence[Sequence[float]]  # [L][F], 0 to 100, rows sorted
    groups: Mapping[str, tuple[int, int]]  # name -> start, stop


@dataclass(frozen=True)
class Cloud:
    """The features of a variant's runs: how often each is active, how well its latent matches."""

    title: str
    points: Mapping[str, Sequence[tuple[float, float]]]  # group -> (frequency, |cosine|)


@dataclass(frozen=True)
class Node:
    """A parent of the tree: its |cosine| with its latent, and per child |cosine| and whether the
    edge was found.
    """

    cosine: float
    children: Sequence[tuple[float, bool]]


@dataclass(frozen=True)
class Tree:
    """The true tree, as far as one SAE recovered it."""

    title: str
    variant: int
    parents: Sequence[Node]


def group_colour(index: int) -> str:
    """The colour of the group of features with this index, the same in every picture."""
    return GROUPS[index % len(GROUPS)]


def heats(panels: Sequence[Heat], groups: Sequence[str], label: str) -> str:
    """A heat map a variant: latents downwards, features to the right, groups as a strip of colour
    above.

    `groups`: every group's name, in the order of the colours.
    """
    with figure_of(COLUMNS, -(-len(panels) // COLUMNS), 3.2, 2.75) as (figure, axes):
        shades = _shades()
        for ax, panel in zip(axes, panels, strict=False):
            n, f = len(panel.per_cent), len(panel.per_cent[0])
            ax.imshow(
                panel.per_cent, cmap=shades, vmin=0, vmax=100, aspect="auto", interpolation="none"
            )
            ax.set_title(panel.title, pad=21)
            ax.set(xlabel=f"{f} features", ylabel=f"{n} latents, sorted", xticks=[], yticks=[])
            ax.grid(visible=False)
            _strip(ax, panel.groups, groups, f)
        return svg_of(figure, label)


def clouds(panels: Sequence[Cloud], groups: Sequence[str], label: str) -> str:
    """A scatter a variant: |cosine| of every feature with its latent against the share of
    activations that hold it.
    """
    known = [x for panel in panels for points in panel.points.values() for x, _ in points if x > 0]
    span = (min(known, default=1.0), max(known, default=1.0))
    with figure_of(COLUMNS, -(-len(panels) // COLUMNS), 3.2, 2.5) as (figure, axes):
        for ax, panel in zip(axes, panels, strict=False):
            ax.set(
                title=panel.title,
                xlabel="share of activations it is in",
                ylabel="|cosine| with its latent",
            )
            for name, points in panel.points.items():
                x, y = [point[0] for point in points], [point[1] for point in points]
                style = {
                    "color": group_colour(groups.index(name)),
                    "alpha": 0.6,
                    "markeredgewidth": 0,
                }
                ax.plot(x, y, linestyle="none", marker="o", markersize=3.4, **style)
            ax.set_ylim(-0.03, 1.05)
            if span[1] > 12 * span[0]:
                log_axis(ax, "x", span)
            else:
                ax.set_xlim(0, span[1] * 1.12)
        return svg_of(figure, label)


def trees(panels: Sequence[Tree], label: str) -> str:
    """A row a variant: parents above their children, found edges drawn, missed ones faint; a shade
    is a |cosine|.
    """
    from matplotlib.collections import LineCollection

    with figure_of(1, len(panels), 3.2 * COLUMNS, 1.25) as (figure, axes):
        shades = _shades()
        for ax, panel in zip(axes, panels, strict=True):
            places, at = [], 0.0
            for node in panel.parents:
                children = [at + i for i in range(len(node.children))]
                middle = at + max(len(children) - 1, 0) / 2
                places += [(middle, 1.0, node.cosine)] + [
                    (x, 0.0, c) for x, (c, _) in zip(children, node.children, strict=True)
                ]
                for found, style in (
                    (False, (MISSED, 0.7, (0, (2, 2)))),
                    (True, (colour(panel.variant), 1.5, "-")),
                ):
                    lines = [
                        [(middle, 1.0), (x, 0.0)]
                        for x, (_, hit) in zip(children, node.children, strict=True)
                        if hit is found
                    ]
                    ax.add_collection(
                        LineCollection(
                            lines, colors=style[0], linewidths=style[1], linestyles=[style[2]]
                        )
                    )
                at += max(len(children), 1) + 0.8
            x, y, shade = (list(column) for column in zip(*places, strict=True))
            size = min(30.0, 5500 / max(at, 1) ** 1.35)
            ax.scatter(
                x,
                y,
                c=shade,
                s=size,
                cmap=shades,
                vmin=0,
                vmax=1,
                edgecolors=INK,
                linewidths=0.6,
                zorder=3,
            )
            _frame(ax, panel.title, at)
        return svg_of(figure, label)


def _strip(
    ax: "Axes", bounds: Mapping[str, tuple[int, int]], groups: Sequence[str], width: int
) -> None:
    """Colours above the columns and lines between the groups; names where they fit side by side,
    the legend has them all.
    """
    from matplotlib.patches import Rectangle

    written = -0.1  # right end of the last name
    for name, (start, stop) in sorted(bounds.items(), key=lambda item: item[1]):
        left, share = start / width, (stop - start) / width
        place = {"transform": ax.transAxes, "clip_on": False}
        ax.add_patch(
            Rectangle(
                (left, 1.012),
                share,
                0.03,
                color=group_colour(groups.index(name)),
                linewidth=0,
                **place,
            )
        )
        if start:
            ax.axvline(start - 0.5, color=INK, linewidth=0.7)
        middle, half = left + share / 2, LETTER * len(name) / 2
        if middle - half > written + LETTER and middle + half < 1.06:
            ax.text(
                middle, 1.05, name, ha="center", va="bottom", fontsize=8, transform=ax.transAxes
            )
            written = middle + half


def _frame(ax: "Axes", title: str, width: float) -> None:
    ax.set(title=title, xlim=(-1.2, width), ylim=(-0.35, 1.35), xticks=[])
    ax.set_yticks([1, 0], ["parents", "children"])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _shades() -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    # steps of 2 per cent: small pictures
    return LinearSegmentedColormap.from_list("cosine", SHADES, N=51)
