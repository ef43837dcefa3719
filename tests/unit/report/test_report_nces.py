"""Pictures of single latents' effects: numbers of closed-form results, found again in the SVG and
on the page.
"""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from saelab.evals.nces import figures as made
from saelab.evals.nces.effects import Contexts, Sums, nces
from saelab.evals.nces.figures import DOTS, Sample, band, reached, thinned
from saelab.evals.result import Result
from saelab.figures import Curves, Figure, Heat, Scatter, Steps
from saelab.report import write_report
from saelab.report.draw import Panel, draw
from saelab.report.draw.curves import over_seeds
from saelab.report.evaluations import evaluation_section, evaluation_titles
from saelab.report.read import Results, RunRecord, read_results
from saelab.types import Score
from unit.report.fixture import write_folder
from unit.report.test_report_page import Page

MINUS = "\N{MINUS SIGN}"
SCORES = {
    "nces_fisher": Score(0.25),
    "causal_mass": Score(0.75),
    "causal_mass_fisher": Score(0.625),
}


def sample(n: int = 10, **columns: Any) -> Sample:
    """Latent j has mass 4^-j / 4 and effect (4^-j)^2; C = E / 8 (NCES 7 / 9), for the last one 8 E
    (NCES -7 / 9).
    """
    size = 4.0 ** -torch.arange(n).double()
    effect = size**2
    control = effect / 8
    control[-1] = 8 * effect[-1]
    known = {"weight": torch.ones(n), "frequency": torch.full((n,), 0.25), "mean_code": size}
    given = {name: torch.tensor(value).double() for name, value in columns.items()}
    return Sample(**(known | {"effect": effect, "control": control} | given))


def agreement(n: int) -> Heat:
    """Zero as in `sample`; noise's effect falls with j, steer's is always 1 and its control 1 + j."""
    own, j = sample(n), torch.arange(n).double()
    zero, one = torch.zeros(n).double(), torch.ones(n).double()
    of = lambda effect, control: Contexts(torch.arange(n), torch.arange(n), effect, control, n)  # noqa: E731
    exact = {"zero": of(own.effect, own.control), "noise": of(-j, zero), "steer": of(one, 1 + j)}
    estimate = Sums(*(t.unsqueeze(0) for t in (own.effect, own.control, one)))
    figure = made._agreement(estimate, exact, torch.arange(n))
    assert isinstance(figure, Heat)
    return figure


def result(n: int = 10, live: Sample | None = None) -> dict[str, Any]:
    """What the evaluation writes about such latents."""
    live = sample(n) if live is None else live
    figures = (made._cloud(live, sample(n), None), made._histogram(live, sample(n), None),
               agreement(n), made._mass(live))  # fmt: skip
    written = Result(SCORES, figures=tuple(figure for figure in figures if figure is not None))
    return json.loads(json.dumps(written.to_json()))


def svg_of(figure: Figure | None) -> str:
    assert figure is not None
    return draw([Panel(0, "topk", "topk, seed 0", [figure])], [], "figure")


def record(content: dict[str, Any], variant: str = "topk", seed: int = 0) -> RunRecord:
    return RunRecord(variant, variant, seed, None, True, {}, {}, [], {}, None, {"nces": content})


def section(**contents: dict[str, Any]) -> tuple[str, Page]:
    """The section on the results of variants, one run each; an empty one: nothing was written."""
    runs = [record(content, variant) for variant, content in contents.items()]
    content = evaluation_section(Results("demo", runs, [], {}), "nces")
    source = f'<section id="nces">{content}</section>'
    return source, Page(source)


def dots(svg: str, n: int) -> tuple[list[float], list[float]]:
    """Where the faint dots of the first panel stand, in points."""
    found = [
        path
        for path in re.findall(r' d="([^"]*)"', svg)
        if path.count("M ") == path.count("L ") == n > 1
    ]
    corners = [re.findall(r"[ML] ([\d.]+) ([\d.]+)", path) for path in found]
    (places,) = [pairs[::2] for pairs in corners if pairs[::2] == pairs[1::2]]
    return [float(x) for x, _ in places], [float(y) for _, y in places]


def cloud(live: Sample, measured: Sample | None, inert: torch.Tensor | None = None) -> Scatter:
    figure = made._cloud(live, measured, inert)
    assert isinstance(figure, Scatter)
    return figure


def test_dots_stand_on_a_line_of_the_known_slope() -> None:
    """Effects that grow with the square of the mass: on log-log axes equal steps, downwards and to
    the left.
    """
    figure = cloud(sample(4), sample(4))
    assert figure.counts == "4 of 4 estimated; 4 measured"
    estimated, exact, control = figure.points
    expected = [(0.25 * 4**-j, 4 ** (-2 * j)) for j in (3, 2, 1, 0)]
    assert [*zip(estimated.x, estimated.y, strict=True)] == expected
    assert [*zip(exact.x, exact.y, strict=True)] == expected
    assert [e / c for e, c in zip(exact.y, control.y, strict=True)] == [1 / 8, 8, 8, 8]
    svg = svg_of(figure)
    x, y = dots(svg, 4)
    steps = [(b - a, c - d) for a, b, d, c in zip(x, x[1:], y, y[1:], strict=False)]
    assert all(dx > 20 and dy < -20 for dx, dy in steps)
    assert all(step == pytest.approx(steps[0], abs=0.05) for step in steps)
    # four full dots and their rings
    assert len(re.findall("<use", svg.split("clip-path", 1)[1])) >= 8


def test_an_effect_of_zero_stands_on_the_lower_edge() -> None:
    effect = [0.0, *(16.0**-j for j in (1, 2, 3))]
    figure = cloud(sample(4, effect=effect), sample(4, effect=effect))
    exact = figure.points[1]
    assert (exact.x[-1], exact.y[-1]) == (0.25, 0.0)
    _, y = dots(svg_of(figure), 4)
    # half the smallest value shown, a control of an eighth of the smallest effect
    step = y[1] - y[2]
    assert y[3] == max(y) and y[3] - y[0] == pytest.approx(step * math.log(2, 16), abs=0.1)


def test_dots_are_capped_and_the_page_says_how_many_are_drawn() -> None:
    n = 3 * DOTS
    many = sample(n, frequency=[0.1] * n, mean_code=[1 + j / n for j in range(n)],
                  effect=[0.01] * n, control=[0.01] * n)  # fmt: skip
    source, page = section(topk=result(4, many))
    assert f"{DOTS} of {n} estimated; 4 measured" in page.text("nces")
    assert source.count("\nL ") < DOTS + 1000 and len(source) < 150_000
    points = [(float(i), 0.0) for i in range(n)]
    kept = thinned(points, DOTS)
    assert len({*kept}) == DOTS and (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:5], DOTS) == points[:5] and thinned([], DOTS) == []


def test_the_band_holds_nine_tenths_of_the_controls_at_that_mass() -> None:
    """Controls that are 0, .01, ..., 1 at small masses and 10 higher at large ones."""
    points = [(1.0 + i / 1000, i / 100) for i in range(101)] + [
        (2.0 + i / 1000, 10 + i / 100) for i in range(101)
    ]
    drawn = band(points)
    assert drawn and drawn.x[0] == 1.0 and drawn.x[-1] == 2.1
    rows = [*zip(drawn.x, drawn.low, drawn.high, strict=True)]
    assert all(high < 2 for mass, _, high in rows if mass < 2)
    assert all(low > 9 for mass, low, _ in rows if mass >= 2)
    whole = band([(1.0, i / 20) for i in range(21)] * 2)  # 42 points: one group
    assert whole and whole.x == [1.0] * 3
    assert whole.low == pytest.approx([0.05] * 3) and whole.high == pytest.approx([0.95] * 3)
    assert band(points[:24]) is None


def test_histogram_counts_latents_once_and_means_weigh_activity() -> None:
    # three latents at NCES 7 / 9, one at -7 / 9
    live, measured = sample(4, frequency=[0.1, 0.1, 0.1, 0.7]), sample(4, weight=[5.0, 1, 1, 1])
    figure = made._histogram(live, measured, None)
    assert isinstance(figure, Steps)
    found = {name: {i: v for i, v in enumerate(bins) if v} for name, bins in figure.counts.items()}
    assert found["estimated"] == {17: 0.75, 2: 0.25}
    assert found["measured"] == pytest.approx({17: 7 / 8, 2: 1 / 8})
    assert figure.marks["mean, estimated"] == pytest.approx(-0.4 * 7 / 9)
    assert figure.marks["mean, measured"] == pytest.approx(0.75 * 7 / 9)
    assert f"mean, measured: 0.58, mean, estimated: {MINUS}0.31" in svg_of(figure)
    assert torch.equal(live.nces, nces(live.effect, live.control))


def test_agreement_has_effects_above_the_diagonal_and_nces_below() -> None:
    """Zero falls with j, steer's effect is always 1 (no rank), its NCES falls with j; the last
    latent's NCES is low.
    """
    figure = agreement(6)
    assert list(figure.rows) == list(figure.columns) == ["zero", "noise", "steer", "Fisher"]
    cells = figure.values
    assert cells[0][1] == pytest.approx(1) and cells[0][3] == pytest.approx(1)
    assert cells[0][2] is None and cells[3][0] == pytest.approx(1)
    # ranks of zero's NCES (from below: one at 1, five tied at 4); steer's are 6, 5, ..., 1
    tied = [4.0] * 5 + [1.0]
    steer = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    mean = 3.5
    covariance = sum((a - mean) * (b - mean) for a, b in zip(tied, steer, strict=True))
    expected = covariance / math.sqrt(
        sum((a - mean) ** 2 for a in tied) * sum((b - mean) ** 2 for b in steer)
    )
    assert cells[2][0] == pytest.approx(expected)
    texts = re.findall(r">([^<>]*)</text>", svg_of(figure))
    assert (
        texts.count(f"{expected:.2f}") == 2 and texts.count("1.00") == 4 and texts.count("n/a") == 6
    )


def test_mass_is_counted_in_the_order_asked_for() -> None:
    """Effects 1, 2, 4, 8, 16 at masses falling: by effect the last comes first, by mass the first."""
    live = sample(5, effect=[1.0, 2.0, 4.0, 8.0, 16.0], mean_code=[5.0, 4.0, 3.0, 2.0, 1.0])
    by_effect, by_mass = made.orders(live).values()
    assert by_effect == pytest.approx([v / 31 for v in (16, 24, 28, 30, 31)])
    assert by_mass == pytest.approx([v / 31 for v in (1, 3, 7, 15, 31)])
    assert [reached(by_effect, part) for part in (0.5, 0.9)] == [1, 3]
    assert [reached(by_mass, part) for part in (0.5, 0.9)] == [5, 5]
    figure = made._mass(live)
    assert isinstance(figure, Curves)
    assert figure.lines["Taken by activation mass"] == ([1, 2, 3, 4, 5], by_mass)
    at, mean, low, high = over_seeds([([1, 2], [0.5, 1.0]), ([1, 2, 3, 4], [0.1, 0.2, 0.6, 1.0])])
    assert at == [1, 2, 3, 4]
    assert (mean, low, high) == (
        pytest.approx([0.3, 0.6, 0.8, 1]),
        [0.1, 0.2, 0.6, 1.0],
        [0.5, 1.0, 1.0, 1.0],
    )


# The page -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both() -> tuple[str, Page]:
    """Two variants with effects, one whose dictionary never fires, one without a result."""
    nothing = {"nces_fisher": Score(None, reason="no latent is active on 30 tokens")}
    silent = Result(nothing).to_json()
    return section(standard=result(), topk=result(40), all_zero=silent, batch_topk={})


def test_pictures_and_numbers_are_on_the_page(both: tuple[str, Page]) -> None:
    source, page = both
    text = page.text()
    assert source.count("<figure ") == 4
    assert "10 of 10 estimated; 10 measured" in text and "40 of 40 estimated; 40 measured" in text
    assert text.count("Bad to see") == 4 and text.count("mean, measured:") == 4  # and tooltips
    assert "Crosses" not in text and "Dotted" not in text  # of worlds only


def test_the_table_says_how_many_latents_carry_the_mass() -> None:
    shares = {"by effect": 1, "by activation": 2}
    table = {
        "title": "Mass",
        "columns": ["taken", "50 %"],
        "rows": [[*row] for row in shares.items()],
    }
    text = section(topk=result() | {"tables": {"mass": table}})[1].text()
    assert "Variant taken 50 % topk by effect 1 topk by activation 2" in text
    broken = section(topk=result() | {"tables": {"mass": {"rows": 3}}})[1].text()
    assert "Mass" not in broken.split("Causal mass")[0]


def test_what_is_not_drawn_is_said_with_the_reason(both: tuple[str, Page]) -> None:
    text = both[1].text()
    assert "Effects of latents of batch_topk: not measured" in text
    assert text.count("Not drawn: all_zero (no latent is active on 30 tokens)") == 4
    assert re.search(r"\b(nan|NaN|None|null|inf)\b", text) is None


def test_the_section_stays_small_and_its_ids_are_unique(both: tuple[str, Page]) -> None:
    source, page = both
    assert len(source) < 2 * 150_000
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20


def test_effects_that_are_all_zero_are_no_mass() -> None:
    live = sample(10, effect=[0.0] * 10)
    text = section(standard=result(), topk=result(10, live))[1].text()
    assert text.count("Not drawn: topk (nothing was recorded to draw)") == 1
    assert f"mean, estimated: {MINUS}1.00" in text


@pytest.mark.parametrize(
    "content",
    [
        {"scores": 3, "figures": [4], "tables": 5},
        {"figures": [{"kind": "scatter"}], "tables": {"a": 3}},
        {"figures": [{"kind": "steps", "edges": 7}], "tables": []},
        {"scores": {"nces_fisher": 1}, "figures": {}, "tables": {"a": {"rows": "x"}}},
    ],
)
def test_damaged_results_never_stop_the_page(content: dict[str, Any]) -> None:
    text = section(standard=result(), topk=content)[1].text()
    assert text.count("Not drawn: topk") == 4 and re.search(r"\b(nan|NaN|None)\b", text) is None
    section(topk=content)  # alone


def test_the_page_has_the_section_where_some_run_was_measured(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "demo", seeds=1, contexts=1)
    assert list(evaluation_titles(read_results(folder))) == ["core"]
    run = next((folder / "runs").glob("topk-*"))
    (run / "eval" / "nces.json").write_text(json.dumps(result()))
    (next((folder / "runs").glob("standard-*")) / "eval" / "nces.json").write_text("{broken\n")
    source = write_report(folder).read_text(encoding="utf-8")
    page = Page(source)
    assert "http:" not in source and "https:" not in source and '<a href="#nces">' in source
    assert "10 of 10 estimated; 10 measured" in page.text("nces")
    assert "Effects of latents of standard, batch_topk, all_zero: not measured" in page.text("nces")
    assert "eval/nces.json is not there" in page.text(
        "facts"
    ) and "eval/nces.json cannot be read" in page.text("facts")
    run_metrics = next(run for run in read_results(folder).runs if run.variant == "topk").metrics
    assert run_metrics["causal_mass"]["value"] == 0.75 and "Causal mass causal_mass" in page.text(
        "summary"
    )


def test_unhealthy_seeds_are_drawn_last_and_not_counted() -> None:
    burnt = replace(record(result(4)), health={"problems": ["it burns"]})
    source = evaluation_section(Results("demo", [burnt, record(result(7), seed=1)], [], {}), "nces")
    assert (
        "topk, seed 1" in source and "7 of 7 estimated" in source and "topk, seed 0" not in source
    )
    alone = evaluation_section(Results("demo", [burnt], [], {}), "nces")
    assert "topk, seed 0 (unhealthy)" in alone


def test_a_world_marks_what_its_model_never_reads() -> None:
    inert = torch.arange(4) == 3
    figure = cloud(sample(4), sample(4), inert)
    assert (
        figure.counts == "4 of 4 estimated; 3 causal, 1 inert" and "Crosses: latents" in figure.note
    )
    assert [points.mark for points in figure.points] == ["faint", "dot", "ring", "cross", "ring"]
    steps = made._histogram(sample(4), sample(4), inert)
    assert isinstance(steps, Steps) and "Dotted: latents" in steps.note
    causal, not_read = steps.counts["causal"], steps.counts["inert"]
    assert (causal[17], not_read[2]) == (0.75, 0.25) and sum(causal) + sum(not_read) == 1
    assert svg_of(figure) and svg_of(steps)
