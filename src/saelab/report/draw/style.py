"""The look of every picture of the page, and SVG text from it: the same bytes for the same data."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Okabe and Ito, 2008
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4B8A", "#7F7F7F")
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
INK = "#3b4248"
# of groups, not rows
GROUPS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#5B4B8A", "#56B4E9", "#7F7F7F")
SEQUENTIAL = ("#ffffff", "#9fcbe6", "#0072b2", "#00263f")  # style.css shows the same scale
DIVERGING = ("#D55E00", "#ffffff", "#0072B2")  # lowest, 0, highest
# what an <svg> inside a page can do without
SURPLUS = r'(?s:<metadata>.*?</metadata>|<!--.*?-->)|\s+xmlns(:\w+)?="[^"]*"'

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "saelab",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": "#aab2b8",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.7,
    "xtick.color": "#7c868d",
    "ytick.color": "#7c868d",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def colour(index: int) -> str:
    """The colour of the variant with this index, the same in every figure and table."""
    return PALETTE[index % len(PALETTE)]


@contextmanager
def figure_of(
    count: int, columns: int, width: float, height: float
) -> "Iterator[tuple[Figure, list[Axes]]]":
    """A grid of at least `count` axes in the page's style, `width` x `height` inches each."""
    from matplotlib import rc_context  # lazily: 0.5 s that only a report pays
    from matplotlib.figure import Figure

    columns = max(columns, 1)
    rows = max(ceil(count / columns), 1)
    with rc_context(_STYLE):
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        axes = [figure.add_subplot(rows, columns, i + 1) for i in range(columns * rows)]
        yield figure, axes


def svg_of(figure: "Figure", label: str) -> str:
    """The figure's <svg> element alone: no document header, metadata, dates, namespaces or ids that
    could clash.
    """
    for ax in figure.axes:
        if not ax.has_data() and not ax.texts:
            ax.set_axis_off()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(SURPLUS, "", text[text.index("<svg") :])
    head = rf'<svg viewBox="\1" role="img" aria-label="{label}">'
    text = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', head, text, count=1)
    # hundredths of a point will do
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    prefix = re.sub(r"\W+", "-", label.lower())
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    text = text.replace("xlink:href", "href")
    return re.sub(r"\n\s*", "\n", text)


def shades(*, diverging: bool) -> "Colormap":
    """Colours of a matrix, in steps of 2 per cent: small pictures."""
    from matplotlib.colors import LinearSegmentedColormap

    names = DIVERGING if diverging else SEQUENTIAL
    return LinearSegmentedColormap.from_list("shades", names, N=101 if diverging else 51)


def log_axis(ax: "Axes", which: str, span: tuple[float, float]) -> None:
    """Makes the x or y axis logarithmic: ticks as plain numbers, at more multiples of ten's powers
    the narrower the span.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = span
    subs = range(1, 10) if high < 8 * low else (1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def empty(ax: "Axes") -> None:
    """Axes without data say so."""
    ink, middle = "#8a5a00", {"ha": "center", "va": "center", "transform": ax.transAxes}
    ax.text(0.5, 0.5, "not measured", color=ink, **middle)
    ax.set(xticks=[], yticks=[])
