"""The look of every picture of the page, and SVG text from it: the same bytes for the same data.

A panel is an <svg> of its own, so that the page sets as many side by side as the screen has room
for. Colours are written as the variables of style.css, which has a light and a dark value of each.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from math import ceil, floor, log10
from textwrap import fill
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

WIDTH = 3.5  # inches of a panel: as wide as a phone, and a third of a page
LETTERS = 36  # of a title that fits above a panel
# Okabe and Ito, 2008
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4B8A", "#7F7F7F")
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
INK, SOFT, FAINT, LINE, PAPER = "#20272c", "#5d686f", "#aab2b8", "#dde2e6", "#ffffff"
# what style.css calls these colours
NAMES: dict[str, str] = dict(
    zip((INK, SOFT, FAINT, LINE, PAPER), ("ink", "soft", "faint", "line", "paper"), strict=True)
)
NAMES |= {shade.lower(): f"row-{i}" for i, shade in enumerate(PALETTE)}
# of groups, not rows
GROUPS = tuple(PALETTE[i] for i in (1, 0, 2, 3, 5, 6, 4, 7))
SEQUENTIAL = ("#ffffff", "#9fcbe6", "#0072b2", "#00263f")  # style.css shows the same scale
DIVERGING = ("#D55E00", "#ffffff", "#0072B2")  # lowest, 0, highest
TIP, SHADED = "tip:", "shaded"  # ids that mark what has a tooltip, and what is a scale of shades
# what an <svg> inside a page can do without
SURPLUS = r'(?s:<metadata>.*?</metadata>|<!--.*?-->)|\s+xmlns(:\w+)?="[^"]*"|(?<=<g) id="[^"]*"'
# multiples of ten's powers at the ticks of a logarithmic axis, with the least distance of two, and
# the distance that a number needs, as a share of the axis
TICKS = ((range(1, 10), log10(10 / 9)), ((1, 2, 5), log10(2)), ((1,), 1.0))
ROOM = {"x": 0.15, "y": 0.1}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "saelab",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
}


def colour(index: int) -> str:
    """The colour of the variant with this index, the same in every figure and table."""
    return PALETTE[index % len(PALETTE)]


def css(shade: str) -> str:
    """A colour as the page writes it."""
    name = NAMES.get(shade.lower())
    return f"var(--{name})" if name else shade


@contextmanager
def panels_of(count: int, height: float, width: float = WIDTH) -> "Iterator[list[Axes]]":
    """Axes of `count` panels in the page's style, `width` x `height` inches each."""
    from matplotlib import figure, rc_context  # lazily: 0.5 s that only a report pays

    with rc_context(_STYLE):
        yield [
            figure.Figure(figsize=(width, height), layout="constrained").add_subplot()
            for _ in range(count)
        ]


def titled(ax: "Axes", title: str, **how: Any) -> None:
    """Gives a panel its title, on as many lines as it needs."""
    ax.set_title(fill(title, LETTERS), **how)


def tip(artist: "Artist", *texts: str) -> None:
    """Gives what is drawn a tooltip; several texts: one for each of its points, in order."""
    if texts:
        artist.set_gid(TIP + "\n".join(texts))


def written(value: float) -> str:
    """A number of a tooltip, to four digits."""
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def picture_of(axes: "Sequence[Axes]", label: str, kind: str = "") -> str:
    """The panels as a <figure> that the page lays out; those without data are left out.

    `label`: what the picture is, html already; `kind`: a class of the figure.
    """
    drawn = [ax for ax in axes if ax.has_data() or ax.texts]
    few = "few" if len(drawn) in (1, 2, 4) else ""  # two columns, not three
    svgs = "".join(_svg(ax, f"{label} {i + 1}") for i, ax in enumerate(drawn))
    return f'<figure class="{kind or few}">{svgs}</figure>'


def _svg(ax: "Axes", label: str) -> str:
    """The <svg> element of a panel alone: no document header, metadata, dates, namespaces or ids
    that could clash.
    """
    buffer = io.StringIO()
    cast("Figure", ax.figure).savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(f'id="{SHADED}"', f'class="{SHADED}"')
    text = re.sub(SURPLUS, "", _with_tips(text))
    name = f"{label}: {escape(ax.get_title('left'))}" if ax.get_title("left") else label
    head = rf'<svg viewBox="\1" role="img" aria-label="{name}">'
    text = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', head, text, count=1)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda shade: css(shade[0]), text)
    # hundredths of a point will do
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    prefix = re.sub(r"\W+", "-", label.lower())
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    text = text.replace("xlink:href", "href")
    return re.sub(r"\n\s*", "\n", text)


def _with_tips(text: str) -> str:
    """Texts that `tip` left as ids become <title> elements of a group, or of each of its points."""
    start, *groups = text.split(f'<g id="{TIP}')
    for group in groups:
        ids, body = group.split('">', 1)
        titles = [f"<title>{line}</title>" for line in re.split("&#10;|\n", ids)]
        start += "<g>"
        if len(titles) == 1:
            start += titles[0] + body
        else:
            for title in titles:
                before, found, body = body.partition("<use ")
                point, end, body = body.partition("/>")
                start += f"{before}{found}{point}>{title}</use>" if end else before
            start += body
    return start


def shades(*, diverging: bool) -> "Colormap":
    """Colours of a matrix, in steps of 2 per cent: small pictures."""
    from matplotlib.colors import LinearSegmentedColormap

    names = DIVERGING if diverging else SEQUENTIAL
    return LinearSegmentedColormap.from_list("shades", names, N=101 if diverging else 51)


def log_axis(ax: "Axes", which: str, span: tuple[float, float]) -> None:
    """Makes the x or y axis logarithmic: ticks as plain numbers, as close as they can be read."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    low, high = span
    needed = ROOM[which] * log10(high / low)
    multiples = next((m for m, least in TICKS if least >= needed), (1,))
    powers = range(floor(log10(low)), ceil(log10(high)) + 1, max(ceil(needed), 1))
    ticks = [m * 10.0**power for power in powers for m in multiples]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(FixedLocator(ticks) if len(ticks) > 1 else MaxNLocator(4))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def empty(ax: "Axes") -> None:
    """Axes without data say so."""
    ax.text(0.5, 0.5, "not measured", color=SOFT, ha="center", va="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])
