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

from saelab.evals.nces.effects import nces
from saelab.report import nces_numbers, nces_plots, write_report
from saelab.report.nces import measured_somewhere, nces_section
from saelab.report.nces_numbers import DOTS, band, curve, reached, thinned
from saelab.report.read import Results, RunRecord, read_results
from unit.report.fixture import write_folder
from unit.report.test_report_page import Page

MINUS = "\N{MINUS SIGN}"
SCORES = {
    "nces_fisher": {"value": 0.25},
    "causal_mass": {"value": 0.75},
    "causal_mass_fisher": {"value": 0.625},
}


def result(n: int = 10) -> dict[str, Any]:
    """Latent j has mass 4^-j / 4 and effect (4^-j)^2; C = E / 8 (NCES 7 / 9), for the last one 8 E
    (NCES -7 / 9).
    """
    size = [4.0**-j for j in range(n)]
    effect = [x**2 for x in size]
    control = [8 * e if j == n - 1 else e / 8 for j, e in enumerate(effect)]
    estimates = {
        "latent": list(range(n)),
        "frequency": [0.25] * n,
        "mean_code": size,
        "effect": effect,
        "control": control,
    }
    rows = [
        {"latent": j, "weight": 1.0, "frequency": 0.25, "mean_code": size[j], "estimate": effect[j],
         "zero": {"effect": effect[j], "control": control[j]}, "noise": {"effect": -j, "control": 0.0},
         "steer": {"effect": 1.0, "control": 1.0 + j}}
        for j in range(n)
    ]  # fmt: skip
    return {"eval": "nces", "facts": {}, "scores": SCORES, "latents": rows, "estimates": estimates}


def record(content: dict[str, Any], variant: str = "topk", seed: int = 0) -> RunRecord:
    metrics = SCORES if content.get("scores") is SCORES else {}
    return RunRecord(
        variant, variant, seed, None, True, metrics, {}, [], {}, {}, None, {"nces": content}
    )


def section(facts: dict[str, Any] | None = None, **contents: dict[str, Any]) -> tuple[str, Page]:
    """The section on the results of variants, one run each; an empty one: nothing was written."""
    runs = [record(content, variant) for variant, content in contents.items()]
    source = (
        f'<section id="effects">{nces_section(Results("demo", runs, [], facts or {}))}</section>'
    )
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


def test_dots_stand_on_a_line_of_the_known_slope() -> None:
    """Effects that grow with the square of the mass: on log-log axes equal steps, downwards and to
    the left.
    """
    panel = nces_numbers.cloud(record(result(4)), 0)
    assert panel and panel.counts == "4 of 4 estimated; 4 measured"
    assert (
        [point[:2] for point in panel.exact]
        == panel.estimated
        == [(0.25 * 4**-j, 4 ** (-2 * j)) for j in (3, 2, 1, 0)]
    )
    assert [e / c for _, e, c in panel.exact] == [1 / 8, 8, 8, 8]
    svg = nces_plots.clouds([panel], "clouds")
    x, y = dots(svg, 4)
    steps = [(b - a, c - d) for a, b, d, c in zip(x, x[1:], y, y[1:], strict=False)]
    assert all(dx > 20 and dy < -20 for dx, dy in steps)
    assert all(step == pytest.approx(steps[0], abs=0.05) for step in steps)
    # four full dots and their rings
    assert len(re.findall("<use", svg.split("clip-path", 1)[1])) >= 8


def test_an_effect_of_zero_stands_on_the_lower_edge() -> None:
    content = result(4)
    content["estimates"]["effect"][0] = content["latents"][0]["zero"]["effect"] = 0.0
    panel = nces_numbers.cloud(record(content), 0)
    assert panel and panel.exact[-1][:2] == (0.25, 0.0)
    svg = nces_plots.clouds([panel], "clouds")
    _, y = dots(svg, 4)
    # half the smallest: a quarter of a step
    assert y[3] == max(y) and y[3] - y[0] == pytest.approx((y[0] - y[1]) / 4, abs=0.1)


def test_dots_are_capped_and_the_page_says_how_many_are_drawn() -> None:
    n = 3 * DOTS
    content = result(4)
    content["estimates"] = {"latent": list(range(n)), "frequency": [0.1] * n, "mean_code": [1 + j / n for j in range(n)],
                            "effect": [0.01] * n, "control": [0.01] * n}  # fmt: skip
    source, page = section(topk=content)
    assert f"{DOTS} of {n} estimated; 4 measured" in page.text("effects")
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
    rows = band(points)
    assert rows[0][0] == 1.0 and rows[-1][0] == 2.1
    assert all(high < 2 for mass, _, high in rows if mass < 2) and all(
        low > 9 for mass, low, _ in rows if mass >= 2
    )
    whole = band([(1.0, i / 20) for i in range(21)] * 2)  # 42 points: one group
    assert whole == [(1.0, pytest.approx(0.05), pytest.approx(0.95))] * 3
    assert band(points[:24]) == []


def test_histogram_counts_latents_once_and_means_weigh_activity() -> None:
    content = result(4)  # three latents at NCES 7 / 9, one at -7 / 9
    content["estimates"]["frequency"] = [0.1, 0.1, 0.1, 0.7]
    content["latents"][0]["weight"] = 5.0
    panel = nces_numbers.histogram(record(content), 0)
    assert panel
    assert {i: share for i, share in enumerate(panel.estimated) if share} == {17: 0.75, 2: 0.25}
    assert {i: share for i, share in enumerate(panel.exact) if share} == pytest.approx(
        {17: 7 / 8, 2: 1 / 8}
    )
    assert panel.mean_estimated == pytest.approx(
        -0.4 * 7 / 9
    ) and panel.mean_exact == pytest.approx(0.75 * 7 / 9)
    svg = nces_plots.histograms([panel], "histograms")
    assert f"mean by activity: 0.58 measured, {MINUS}0.31 estimated" in svg
    import torch

    latents = nces_numbers.live_latents(record(content))
    expected = nces(
        *(torch.tensor(content["estimates"][key]) for key in ("effect", "control"))
    ).tolist()
    assert [latent.nces for latent in latents] == pytest.approx(expected)


def test_agreement_has_effects_above_the_diagonal_and_nces_below() -> None:
    """Zero falls with j, steer's effect is always 1 (no rank), its NCES falls with j; the last
    latent's NCES is low.
    """
    panel = nces_numbers.agreement(record(result(6)))
    assert panel and list(panel.names) == ["zero", "noise", "steer", "Fisher"]
    assert panel.effect[0][1] == pytest.approx(1) and panel.effect[0][3] == pytest.approx(1)
    assert panel.effect[0][2] is None and panel.nces[0][3] == pytest.approx(1)
    # ranks of zero's NCES (from below: one at 1, five tied at 4); steer's are 6, 5, ..., 1
    tied = [4.0] * 5 + [1.0]
    steer = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    mean = 3.5
    covariance = sum((a - mean) * (b - mean) for a, b in zip(tied, steer, strict=True))
    expected = covariance / math.sqrt(
        sum((a - mean) ** 2 for a in tied) * sum((b - mean) ** 2 for b in steer)
    )
    assert panel.nces[0][2] == pytest.approx(expected)
    svg = nces_plots.agreements([panel], "agreement")
    cells = re.findall(r">([^<>]*)</text>", svg)
    assert (
        cells.count(f"{expected:.2f}") == 2 and cells.count("1.00") == 4 and cells.count("n/a") == 6
    )


def test_mass_is_counted_in_the_order_asked_for() -> None:
    """Effects 1, 2, 4, 8, 16 at masses falling: by effect the last comes first, by mass the first."""
    content = result(5)
    content["estimates"] |= {
        "effect": [1.0, 2.0, 4.0, 8.0, 16.0],
        "mean_code": [5.0, 4.0, 3.0, 2.0, 1.0],
    }
    orders = [
        nces_numbers.mass_order(record(content), key)
        for key in (lambda latent: latent.on_text, lambda latent: latent.mass)
    ]
    by_effect, by_mass = orders
    assert by_effect == pytest.approx([v / 31 for v in (16, 24, 28, 30, 31)])
    assert by_mass == pytest.approx([v / 31 for v in (1, 3, 7, 15, 31)])
    assert [reached(by_effect or [], part) for part in (0.5, 0.9)] == [1, 3]
    assert [reached(by_mass or [], part) for part in (0.5, 0.9)] == [5, 5]
    line = curve([[0.5, 1.0], [0.1, 0.2, 0.6, 1.0]], 0)
    assert line.taken == [1, 2, 3, 4]
    assert (line.mean, line.low, line.high) == (
        pytest.approx([0.3, 0.6, 0.8, 1]),
        [0.1, 0.2, 0.6, 1.0],
        [0.5, 1.0, 1.0, 1.0],
    )


# The page -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both() -> tuple[str, Page]:
    """Two variants with effects, one whose dictionary never fires, one without a result."""
    nothing = {"value": None, "reason": "no latent is active on 30 tokens"}
    silent = {
        "eval": "nces",
        "scores": {"nces_fisher": nothing},
        "latents": [],
        "estimates": {"latent": [], "effect": []},
    }
    return section(standard=result(), topk=result(40), all_zero=silent, batch_topk={})


def test_pictures_and_numbers_are_on_the_page(both: tuple[str, Page]) -> None:
    source, page = both
    text = page.text()
    assert source.count("<figure>") == 4
    assert "10 of 10 estimated; 10 measured" in text and "40 of 40 estimated; 40 measured" in text
    assert text.count("Bad to see") == 4 and text.count("mean by activity:") == 2
    # 15 / 16 of the sum of 16^-j is in the first latent
    assert "standard 0.7500 0.6250 1 1 1 1" in text
    assert "Crosses" not in text and "Dotted" not in text  # of worlds only


def test_what_is_not_drawn_is_said_with_the_reason(both: tuple[str, Page]) -> None:
    text = both[1].text()
    assert "Effects of the latents of batch_topk: not measured" in text
    assert text.count("Not drawn: all_zero (no latent is active on 30 tokens)") == 4
    assert re.search(r"\b(nan|NaN|None|null|inf)\b", text) is None


def test_the_section_stays_small_and_its_ids_are_unique(both: tuple[str, Page]) -> None:
    source, page = both
    assert len(source) < 2 * 150_000
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20


def test_a_field_that_was_not_recorded_leaves_its_pictures_out() -> None:
    """Results without mean codes keep their histogram; with one type only the estimate is what is
    left to compare with.
    """
    content = result()
    del content["estimates"]["mean_code"]
    content["latents"] = [
        {key: v for key, v in row.items() if key not in ("noise", "steer")}
        for row in content["latents"]
    ]
    text = section(topk=content)[1].text()
    assert "Not drawn: topk (no latent was recorded with frequency, mean code and effect)" in text
    assert (
        "Not drawn: topk (no latent with an effect was recorded with frequency and mean code)"
        in text
    )
    assert "mean by activity:" in text and text.count("Not drawn") == 2
    text = section(topk=content | {"estimates": {}})[1].text()
    assert (
        "Not drawn: topk (fewer than two types were measured)" in text
        and text.count("Not drawn: topk") == 4
    )


def test_effects_that_are_all_zero_are_no_mass() -> None:
    content = result()
    content["estimates"]["effect"] = [0.0] * 10
    text = section(topk=content)[1].text()
    assert (
        "Not drawn: topk (no latent with an effect was recorded with frequency and mean code)"
        in text
    )
    assert f"{MINUS}1.00 estimated" in text


@pytest.mark.parametrize(
    "content",
    [
        {"scores": 3, "latents": [4], "estimates": 5},
        {"latents": [{"zero": {"effect": "x"}}]},
        {"estimates": {"latent": [1, 2], "effect": [1], "frequency": "x"}, "details": []},
        {"scores": {"nces_fisher": 1}, "latents": {}, "details": {"latents": None}},
    ],
)
def test_damaged_results_never_stop_the_page(content: dict[str, Any]) -> None:
    text = section(topk=content)[1].text()
    assert text.count("Not drawn: topk") == 4 and re.search(r"\b(nan|NaN|None)\b", text) is None


def test_the_page_has_the_section_where_some_run_was_measured(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "demo", seeds=1, contexts=1)
    assert not measured_somewhere(read_results(folder))
    run = next((folder / "runs").glob("topk-*"))
    (run / "eval" / "nces.json").write_text(json.dumps(result()))
    (next((folder / "runs").glob("standard-*")) / "eval" / "nces.json").write_text("{broken\n")
    source = write_report(folder).read_text(encoding="utf-8")
    page = Page(source)
    assert "http:" not in source and "https:" not in source and '<a href="#effects">' in source
    assert "10 of 10 estimated; 10 measured" in page.text("effects")
    assert "Effects of the latents of standard, batch_topk, all_zero: not measured" in page.text(
        "effects"
    )
    assert "eval/nces.json is not there" in page.text(
        "facts"
    ) and "eval/nces.json cannot be read" in page.text("facts")
    run_metrics = next(run for run in read_results(folder).runs if run.variant == "topk").metrics
    assert run_metrics["causal_mass"] == {"value": 0.75} and "Causal mass causal_mass" in page.text(
        "summary"
    )


def test_unhealthy_seeds_are_drawn_last_and_not_counted() -> None:
    burnt = replace(record(result(4)), health={"problems": ["it burns"]})
    source = nces_section(Results("demo", [burnt, record(result(7), seed=1)], [], {}))
    assert (
        "topk, seed 1" in source and "7 of 7 estimated" in source and "topk, seed 0" not in source
    )
    assert "topk, seed 0 (unhealthy)" in nces_section(Results("demo", [burnt], [], {}))


def test_a_world_marks_what_its_model_never_reads() -> None:
    content = result(4)
    for row in content["latents"]:
        row["causal"] = row["latent"] < 3
    details = {key: content[key] for key in ("latents", "estimates")}
    text = section({"world": "s1"}, topk={"eval": "nces", "scores": {}, "details": details})[
        1
    ].text()
    assert "4 of 4 estimated; 3 causal, 1 inert" in text and "Crosses: latents" in text
    panel = nces_numbers.histogram(record({"details": details}), 0)
    assert (
        panel
        and (panel.exact[17], panel.inert[2]) == (0.75, 0.25)
        and sum(panel.exact) + sum(panel.inert) == 1
    )
    # as worlds wrote it once
    before = {"eval": "nces", "scores": {"nces_spearman": {"value": 0.9}}, "details": {}}
    assert section({"world": "s1"}, topk=before)[1].text().count("Not drawn: topk (") == 4
