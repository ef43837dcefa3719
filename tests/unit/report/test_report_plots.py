import math
import re
from importlib.resources import files
from itertools import pairwise

import pytest

from saelab.figures import Axis, Curves, Heat, Node, Points, Scatter, Steps, Tree
from saelab.report.draw import Panel, draw, runs, style

STYLE = files("saelab.report").joinpath("style.css").read_text(encoding="utf-8")
MINUS = "\N{MINUS SIGN}"
POINT = runs.Point("topk, seed 1", 0, 32, 0.95, 0.94, 0.96)


def test_thin_keeps_the_last_point_and_the_bound() -> None:
    x = [float(i) for i in range(10_001)]
    kept, values = runs.thin(x, [value * 2 for value in x])
    assert len(kept) <= runs.POINTS + 1 and kept[-1] == 10_000.0
    assert all(v == 2 * k for k, v in zip(kept, values, strict=True))
    assert runs.thin([], []) == ([], []) and runs.thin([1.0], [None]) == ([1.0], [None])


def test_figures_without_data_say_so() -> None:
    empty = [runs.Trade("L0", "Explained variance", []), runs.Trade("L0", "CE", [])]
    curves = runs.curves([("Loss (log)", [runs.Line("a", 0, 0, [0, 1], [None, None])])], "curves")
    assert runs.trades(empty, "frontier").count("not measured") == 2
    assert curves.count("not measured") == 1


def test_svg_is_bare_and_repeatable() -> None:
    lines = [
        runs.Line("a", 0, 0, [0.0, 1e6], [3.0, 1.0]),
        runs.Line("b", 1, 1, [0.0, 1e6], [2.0, None]),
    ]
    panels = [("Loss (log)", lines), ("<L0> $x$ & more", lines)]
    figure = runs.curves(panels, "Training curves")
    assert figure.startswith('<figure class="few"><svg viewBox=') and figure.count("<svg ") == 2
    assert figure.rstrip().endswith("</svg>\n</figure>")
    assert "xmlns" not in figure and "metadata" not in figure and "http" not in figure
    assert "&lt;L0&gt; $x$ &amp; more" in figure
    ids = re.findall(r'\bid="([^"]+)"', figure)
    assert ids and len(ids) == len(set(ids))
    assert all(found.startswith("training-curves") for found in ids)
    assert figure == runs.curves(panels, "Training curves")


def test_colours_are_variables_with_a_light_and_a_dark_value() -> None:
    """Every plot's colour is one of the page, whose light value is the one it was drawn with."""
    lines = [runs.Line("a", row, 0, [0.0, 1e6], [3.0, 1.0]) for row in range(8)]
    figure = runs.curves([("Loss (log)", lines)], "curves")
    assert not re.findall(r"#[0-9a-f]{6}\b", figure)
    assert {f"row-{i}" for i in range(8)} < set(re.findall(r"var\(--([\w-]+)\)", figure))
    roots = re.findall(r":root \{[^}]*\}", STYLE)
    values = [dict(re.findall(r"--([\w-]+): (#\w+)", root)) for root in roots]
    light = values[0] | {"paper": values[0]["paper"].replace("#fff", "#ffffff")}
    assert {name: light[name] for name in style.NAMES.values()} == {
        name: shade for shade, name in style.NAMES.items()
    }
    assert set(style.NAMES.values()) <= set(values[1])
    assert all(values[0][name] != values[1][name] for name in style.NAMES.values())


def test_scales_of_shades_are_marked_for_the_dark_page() -> None:
    heat = Heat("h", "", "", [], [], [[0.0, 1.0]], 0, 1)
    figure = draw([Panel(0, "topk", "topk, seed 0", [heat])], [], "heat")
    assert re.search(r'<image [^>]*class="shaded"', figure)
    tree = Tree("t", "", "", (Node("root", 0.5, (Node("leaf", 1.0),)),))
    figure = draw([Panel(0, "topk", "topk, seed 0", [tree])], [], "tree")
    assert figure.startswith('<figure class="tree">') and "<use " in figure
    assert re.search(r"\.shaded, figure\.tree use,[^{]*\{[^}]*filter: invert", STYLE)


def test_two_and_four_panels_stand_in_two_columns() -> None:
    def columns(n: int) -> str:
        figure = runs.trades([runs.Trade("L0", "CE", [POINT])] * n, "frontier")
        return re.findall('<figure class="([^"]*)"', figure)[0]

    assert [columns(n) for n in (1, 2, 3, 4, 5, 6)] == ["few", "few", "", "few", "", ""]


def test_dead_share_is_a_bar() -> None:
    """One a seed, and a line a seed; the axis ends where nothing is counted."""
    figures = [
        Steps("d", "", "", Axis("log10"), Axis("share"), [-3, -2, -1, 0], {"latents": bins}, apart={"dead": dead})
        for bins, dead in (([0, 0.9, 0], 0.1), ([0, 0, 0], 1.0))
    ]  # fmt: skip
    svg = draw([Panel(0, "topk", "topk, seed 0", figures)], [], "densities")
    assert "topk (dead 10.0 %, 100.0 %)" in svg
    assert re.findall("<title>(dead: [^<]*)</title>", svg) == ["dead: 10.0 %", "dead: 100.0 %"]
    assert f"{MINUS}2" in svg and f"{MINUS}3" not in svg


def test_bars_scale_to_the_tallest() -> None:
    svg = runs.bars([0.0, 1.0, 2.0], [9, 0])
    assert svg.count("<rect") == 1 and 'height="44.0"' in svg
    assert math.isclose(float(svg.split('y="')[1].split('"')[0]), 2.0) or "46.5" in svg


def test_one_score_against_another_has_plain_ticks():
    def ticks(*values: float) -> list[str]:
        points = [runs.Point("run", 0, 0.9 + 0.01 * i, value) for i, value in enumerate(values)]
        panel = runs.Trade("Explained variance", "KL", points, over_l0=False)
        return re.findall(r"<text[^>]*>([^<]*)</text>", runs.trades([panel], "trade"))

    assert {"Explained variance", "KL"} <= {*ticks(0.09, 0.1)}
    assert {"0.1", "0.2", "0.5", "1"} <= {*ticks(0.09, 0.1, 1.2)}  # a logarithm's are numbers too


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize("high", [0.081, 0.09, 0.12, 0.3, 0.6, 1.1, 9.0, 70.0, 4e3, 1e6, 2e11])
def test_log_ticks_never_overprint(which: str, high: float) -> None:
    """The boxes of the numbers, as drawn; there are two at least."""
    with style.panels_of(1, 2.2) as (ax,):
        line = [0.08, high]
        ax.plot(line, line)
        style.log_axis(ax, which, (0.08, high))
        style.picture_of([ax], "axis")
        labels = (ax.xaxis if which == "x" else ax.yaxis).get_ticklabels()
        low, top = sorted((ax.get_xlim if which == "x" else ax.get_ylim)())
        inside = [
            label.get_window_extent()
            for label in labels
            if low <= label.get_position()["xy".index(which)] <= top
        ]
    assert len(inside) >= 2
    ends = sorted((box.x0, box.x1) if which == "x" else (box.y0, box.y1) for box in inside)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends)), ends


def test_points_and_lines_say_what_they_are() -> None:
    def titles(figure: str) -> list[str]:
        return re.findall(r"<title>([^<]*)</title>", figure)

    said = "topk, seed 1: L0 32, CE 0.95 [0.94, 0.96]"
    assert titles(runs.trades([runs.Trade("L0", "CE", [POINT])], "frontier")) == [said, said]
    line = runs.Line("topk, seed 1", 0, 0, [0.0, 5e5, 1e6], [3.0, 1.25, None])
    assert titles(runs.curves([("Loss", [line])], "curves")) == [
        "topk, seed 1: 1.25 at 500k tokens"
    ]
    mass = Curves("c", "", "", Axis("n"), Axis("share"), {"all": ([1, 2], [0.5, 1.0])})
    assert titles(draw([Panel(0, "topk", "", [mass])], [], "c")) == ["topk: 1 at 2"]


def test_each_of_many_points_has_its_own_values() -> None:
    points = Points("measured <0>", [1.0, 2.0, 3.0], [0.5, None, -1.0])
    cloud = Scatter("s", "", "", Axis("mass"), Axis("effect"), (points,))
    tree = Tree("t", "", "", (Node("root", 0.5, (Node("leaf", None, link=1.0),)),))
    figures = [draw([Panel(0, "topk", "", [figure])], [], "f") for figure in (cloud, tree)]
    assert re.findall(r"<use [^>]*><title>([^<]*)</title></use>", figures[0]) == [
        "measured &lt;0&gt;: mass 1, effect 0.5",
        f"measured &lt;0&gt;: mass 3, effect {MINUS}1",
    ]
    assert re.findall(r"<title>([^<]*)</title></use>", figures[1]) == ["root: 0.5", "leaf: none"]


def test_a_small_change_does_not_look_large():
    low, high = runs.wide(24.0, 24.001)
    assert high - low > 1 and low < 24 < high
    assert runs.wide(0.0, 0.001)[0] > -0.01 and runs.wide(0.0, 0.001)[1] > 0.02
    assert runs.wide(-1.0, 1.0) == pytest.approx((-1.1, 1.1))
    assert runs.wide(0.2, 0.8) == pytest.approx((0.17, 0.83))
