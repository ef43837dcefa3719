import math
import re

from saelab.figures import Axis, Steps
from saelab.report.draw import Panel, draw, runs, style


def test_thin_keeps_the_last_point_and_the_bound() -> None:
    x = [float(i) for i in range(10_001)]
    kept, values = runs.thin(x, [value * 2 for value in x])
    assert len(kept) <= runs.POINTS + 1 and kept[-1] == 10_000.0
    assert all(v == 2 * k for k, v in zip(kept, values, strict=True))
    assert runs.thin([], []) == ([], []) and runs.thin([1.0], [None]) == ([1.0], [None])


def test_figures_without_data_say_so() -> None:
    frontier = runs.frontier([("Explained variance", []), ("CE", [])], "frontier")
    curves = runs.curves([("Loss (log)", [runs.Line(0, 0, [0.0, 1.0], [None, None])])], "curves")
    assert frontier.count("not measured") == 2 and curves.count("not measured") == 1


def test_svg_is_bare_and_repeatable() -> None:
    lines = [runs.Line(0, 0, [0.0, 1e6], [3.0, 1.0]), runs.Line(1, 1, [0.0, 1e6], [2.0, None])]
    svg = runs.curves([("Loss (log)", lines), ("<L0> $x$ & more", lines)], "Training curves")
    assert svg.startswith("<svg viewBox=") and svg.rstrip().endswith("</svg>")
    assert "xmlns" not in svg and "metadata" not in svg and "http" not in svg
    assert "&lt;L0&gt; $x$ &amp; more" in svg and style.PALETTE[0].lower() in svg.lower()
    assert all(
        found.startswith("Training-curves".lower()) for found in re.findall(r'\bid="([^"]+)"', svg)
    )
    assert svg == runs.curves(
        [("Loss (log)", lines), ("<L0> $x$ & more", lines)], "Training curves"
    )


def test_dead_share_is_a_bar() -> None:
    """One a seed, and a line a seed; the axis ends where nothing is counted."""
    figures = [
        Steps("d", "", "", Axis("log10"), Axis("share"), [-3, -2, -1, 0], {"latents": bins}, apart={"dead": dead})
        for bins, dead in (([0, 0.9, 0], 0.1), ([0, 0, 0], 1.0))
    ]  # fmt: skip
    svg = draw([Panel(0, "topk", "topk, seed 0", figures)], [], "densities")
    assert svg.count("#8a8f94") == 2 and "topk (dead 10.0 %, 100.0 %)" in svg
    assert "\N{MINUS SIGN}2" in svg and "\N{MINUS SIGN}3" not in svg


def test_bars_scale_to_the_tallest() -> None:
    svg = runs.bars([0.0, 1.0, 2.0], [9, 0])
    assert svg.count("<rect") == 1 and 'height="44.0"' in svg
    assert math.isclose(float(svg.split('y="')[1].split('"')[0]), 2.0) or "46.5" in svg


def test_one_score_against_another_has_plain_ticks():
    points = [runs.Point(0, 0.92, 0.09), runs.Point(1, 0.93, 0.1)]
    near = runs.trade(points, "Explained variance", "KL", "trade")
    far = runs.trade([*points, runs.Point(2, 0.5, 1.2)], "Explained variance", "KL", "trade")
    # a logarithm's ticks are numbers too
    assert "Explained variance" in near and "mathdefault" not in far
