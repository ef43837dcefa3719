"""Pictures of single latents' effects, as SVG text: the same bytes for the same data.

Legend: E effect of a latent | C effect of its control | S latents taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, nan
from typing import TYPE_CHECKING, Any

from saelab.report.plots import INK, colour, figure_of, log_axis, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, WIDTH = 2, 4.8  # of panels; three would not leave room for their labels
BAND = "#b9c1c7"
DOT: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 5.2,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
}
RING: dict[str, Any] = {
    **DOT,
    "markersize": 4,
    "markerfacecolor": "none",
    "markeredgecolor": "#5d686f",
    "markeredgewidth": 0.8,
}
SHADES = ("#D55E00", "#ffffff", "#0072B2")  # rank correlation -1, 0, 1
DARK = 0.62  # |correlation| from which the number in a cell is white
BINS = 20  # of NCES, over [-1, 1]

Point = tuple[float, float]


@dataclass(frozen=True)
class Cloud:
    """The latents of one SAE: (activation mass, effect); an effect that is not above 0 stands on
    the lower edge.
    """

    title: str
    counts: str  # how many latents are drawn
    variant: int
    estimated: Sequence[Point]  # E of live latents, perhaps not all of them
    exact: Sequence[tuple[float, float, float]]  # mass, E and C of the measured ones
    # the same of those that a world's model never reads
    inert: Sequence[tuple[float, float, float]]
    band: Sequence[tuple[float, float, float]]  # mass, 5 % and 95 % of the estimated C there


@dataclass(frozen=True)
class Histogram:
    """NCES of one SAE's latents: share of them in each bin, and means by activity."""

    title: str
    variant: int
    estimated: Sequence[float]  # [BINS]
    exact: Sequence[float]  # [BINS] of the measured ones, empty if there are none
    inert: Sequence[float]  # [BINS] the same of those that a world's model never reads
    mean_estimated: float
    mean_exact: float | None


@dataclass(frozen=True)
class Agreement:
    """Rank correlations of what was measured of one SAE, None where undefined."""

    title: str
    names: Sequence[str]
    effect: Sequence[Sequence[float | None]]
    nces: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Curve:
    """Share of a row's causal mass in the first S latents: mean and range over its seeds."""

    variant: int
    taken: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def clouds(panels: Sequence[Cloud], label: str) -> str:
    """A scatter an SAE, on shared log-log axes: exact effects on top of estimated ones, both above
    the band of controls.
    """
    x = [point[0] for panel in panels for point in [*panel.estimated, *panel.exact, *panel.inert]]
    known = [
        value
        for panel in panels
        for point in [*panel.estimated, *panel.exact, *panel.inert]
        for value in point[1:]
    ]
    y = [value for value in known if value > 0] or [1.0]
    edge = min(y) / 2  # where an effect of 0 is drawn
    with figure_of(COLUMNS, ceil(len(panels) / COLUMNS), WIDTH, 3.0) as (figure, axes):
        for ax, panel in zip(axes, panels, strict=False):
            ax.set(
                title=panel.title,
                xlabel=f"activation mass (mean code)\n{panel.counts}",
                ylabel="effect E (nats)",
            )
            at, low, high = ([row[i] for row in panel.band] for i in range(3))
            ax.fill_between(
                at,
                [max(v, edge) for v in low],
                [max(v, edge) for v in high],
                color=BAND,
                alpha=0.55,
                linewidth=0,
            )
            shade = colour(panel.variant)
            _faint(ax, panel.estimated, edge, shade)
            for points, style in (
                (panel.inert, {**DOT, "marker": "X", "color": INK}),
                (panel.exact, {**DOT, "color": shade}),
            ):
                own, control = (
                    [(point[0], max(point[i], edge)) for point in points] for i in (1, 2)
                )
                ax.plot(*_joined(own, control), color=style["color"], linewidth=0.6, alpha=0.6)
                ax.plot(*_apart(control), **RING)
                ax.plot(*_apart(own), **style)
            ax.set(xlim=(min(x) / 1.4, max(x) * 1.4), ylim=(edge / 1.4, max(y) * 1.4))
            log_axis(ax, "x", (min(x), max(x)))
            log_axis(ax, "y", (min(y), max(y)))
        return svg_of(figure, label)


def histograms(panels: Sequence[Histogram], label: str) -> str:
    """NCES of live latents: estimated ones filled, measured ones as a line; means by activity as
    upright lines.
    """
    edges = [-1 + 2 * i / BINS for i in range(BINS + 1)]
    with figure_of(COLUMNS, ceil(len(panels) / COLUMNS), WIDTH, 2.6) as (figure, axes):
        for ax, panel in zip(axes, panels, strict=False):
            shade = colour(panel.variant)
            ax.stairs(panel.estimated, edges, fill=True, color=shade, alpha=0.3)
            means = f"{panel.mean_estimated:.2f} estimated".replace("-", "\N{MINUS SIGN}")
            ax.axvline(panel.mean_estimated, color=INK, linewidth=1, linestyle=(0, (3, 2)))
            for bins, ink in ((panel.inert, INK), (panel.exact, shade)):
                if bins:
                    ax.stairs(
                        bins,
                        edges,
                        color=ink,
                        linewidth=1.5,
                        linestyle="-" if ink == shade else (0, (1, 1)),
                    )
            if panel.mean_exact is not None:
                ax.axvline(panel.mean_exact, color=INK, linewidth=1.2)
                means = f"{panel.mean_exact:.2f} measured, {means}".replace("-", "\N{MINUS SIGN}")
            ax.set(
                title=panel.title,
                xlabel=f"NCES\nmean by activity: {means}",
                ylabel="share of live latents",
                xlim=(-1, 1),
            )
            ax.set_xticks(
                [-1, -0.5, 0, 0.5, 1], ["\N{MINUS SIGN}1", "\N{MINUS SIGN}0.5", "0", "0.5", "1"]
            )
        return svg_of(figure, label)


def agreements(panels: Sequence[Agreement], label: str) -> str:
    """A heat map an SAE, numbers in its cells: effects above the diagonal, NCES below."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("correlation", SHADES, N=101)
    with figure_of(COLUMNS, ceil(len(panels) / COLUMNS), WIDTH, 2.9) as (figure, axes):
        for ax, panel in zip(axes, panels, strict=False):
            n = len(panel.names)
            cells = [[_cell(panel, i, j) for j in range(n)] for i in range(n)]
            ax.imshow(
                [[v or 0.0 for v in row] for row in cells],
                cmap=shades,
                vmin=-1,
                vmax=1,
                aspect="auto",
                interpolation="none",
            )
            for i, row in enumerate(cells):
                for j, value in enumerate(row):
                    if i != j:
                        text = (
                            "n/a"
                            if value is None
                            else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
                        )
                        ink = "white" if abs(value or 0) > DARK else INK
                        ax.text(j, i, text, ha="center", va="center", fontsize=8.5, color=ink)
            ax.plot([-0.5, n - 0.5], [-0.5, n - 0.5], color="#aab2b8", linewidth=0.8)
            ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
            ax.set_title(panel.title, pad=8)
            ax.set_xticks(range(n), panel.names, fontsize=8.5)
            ax.set_yticks(range(n), panel.names, fontsize=8.5)
            ax.tick_params(length=0)
            ax.grid(visible=False)
        return svg_of(figure, label)


def mass_curves(panels: Sequence[tuple[str, Sequence[Curve]]], label: str) -> str:
    """Share of causal mass against latents taken, a panel an order of taking them, a line a row
    with its seeds' range.
    """
    most = max((curve.taken[-1] for _, curves in panels for curve in curves), default=1)
    with figure_of(len(panels), 1, WIDTH, 3.2) as (figure, axes):
        for ax, (title, curves) in zip(axes, panels, strict=True):
            ax.set(
                title=title, xlabel="latents taken", ylabel="share of causal mass", ylim=(0, 1.02)
            )
            for curve in curves:
                shade = colour(curve.variant)
                if curve.low != curve.high:
                    ax.fill_between(
                        curve.taken, curve.low, curve.high, color=shade, alpha=0.25, linewidth=0
                    )
                ax.plot(curve.taken, curve.mean, color=shade, linewidth=1.6)
            ax.set_xlim(1, max(most, 2))
            log_axis(ax, "x", (1, most))
        return svg_of(figure, label)


def _faint(ax: "Axes", points: Sequence[Point], edge: float, shade: str) -> None:
    """Many small dots as one path: strokes of no length with round ends; markers would take five
    times the space.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners = [(x, max(y, edge)) for x, y in points for _ in range(2)]
    path = Path(corners, [Path.MOVETO, Path.LINETO] * len(points))
    path.should_simplify = False
    ax.add_patch(
        PathPatch(path, fill=False, edgecolor=shade, linewidth=2.4, alpha=0.3, capstyle="round")
    )


def _apart(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _joined(a: Sequence[Point], b: Sequence[Point]) -> tuple[list[float], list[float]]:
    """One line with a gap after every pair."""
    return _apart(
        [
            corner
            for first, second in zip(a, b, strict=True)
            for corner in (first, second, (nan, nan))
        ]
    )


def _cell(panel: Agreement, i: int, j: int) -> float | None:
    return None if i == j else (panel.effect if i < j else panel.nces)[i][j]
