from dataclasses import replace

import pytest

from saelab.experiments.compare import judge as judging
from saelab.experiments.compare.judge import row
from saelab.experiments.compare.summary import merged
from saelab.experiments.plan import Contrast
from saelab.types import Score

CLAIM = Contrast("explained_variance", baseline="topk", treatment="batch_topk")


def rows(treatment, baseline, *, l0=(32.0, 32.0), healthy=True, seeds=None):
    made = []
    for variant, values, size in (("batch_topk", treatment, l0[0]), ("topk", baseline, l0[1])):
        for seed, value in zip(seeds or range(len(values)), values, strict=True):
            scores = {
                "l0": Score(size),
                **dict.fromkeys(
                    ("explained_variance", "mse"),
                    Score(value, reason="" if value is not None else "no variance"),
                ),
            }
            made.append(row(f"{variant}-s{seed}", variant, seed, healthy=healthy, scores=scores))
    return made


def judge(claim, made):
    (verdict,) = judging.judge([claim], made)
    return verdict


def test_row_holds_exactly_what_the_summary_promises():
    scores = {"l0": Score(31.5, 31.0, 32.0), "cossim": Score(None, reason="L0 is 0")}
    assert row("topk-s1-abc", "topk", 1, healthy=False, scores=scores) == {
        "variant": "topk",
        "seed": 1,
        "l0": 31.5,
        "healthy": False,
        "metrics": {
            "l0": {"value": 31.5, "low": 31.0, "high": 32.0},
            "cossim": {"value": None, "low": None, "high": None, "reason": "L0 is 0"},
        },
        "run": "topk-s1-abc",
    }


def test_better_when_the_interval_excludes_zero():
    verdict = judge(CLAIM, rows([0.82, 0.83, 0.84], [0.80, 0.81, 0.82]))
    assert verdict["verdict"] == "better"
    assert verdict["value"] == pytest.approx(0.02)
    assert verdict["low"] == pytest.approx(0.02) and verdict["high"] == pytest.approx(0.02)
    assert list(verdict)[:6] == ["metric", "baseline", "treatment", "value", "low", "high"]
    assert list(verdict)[6:] == ["n", "p", "detectable", "verdict"]
    assert verdict["n"] == 3


def test_worse_where_lower_is_better():
    error = replace(CLAIM, metric="mse")
    assert judge(error, rows([0.82, 0.83], [0.80, 0.81]))["verdict"] == "worse"
    assert judge(error, rows([0.80, 0.81], [0.82, 0.83]))["verdict"] == "better"
    assert judge(CLAIM, rows([0.80, 0.81], [0.82, 0.83]))["verdict"] == "worse"


def test_no_difference_when_the_interval_includes_zero():
    verdict = judge(CLAIM, rows([0.80, 0.84], [0.81, 0.81]))
    assert verdict["verdict"] == "no difference shown" and verdict["low"] < 0 < verdict["high"]
    assert verdict["value"] == pytest.approx(0.01)


def test_pairs_are_matched_by_seed_not_by_order():
    ordered = rows([0.82, 0.92], [0.80, 0.90])
    shuffled = [ordered[1], ordered[0], ordered[2], ordered[3]]
    assert judge(CLAIM, shuffled) == judge(CLAIM, ordered)


def test_one_seed_shows_nothing():
    verdict = judge(CLAIM, rows([0.9], [0.1]))
    assert verdict["verdict"] == "no difference shown" and verdict["value"] == pytest.approx(0.8)
    assert verdict["low"] is None and "2 seeds" in verdict["reason"]


@pytest.mark.parametrize(
    ("sizes", "verdict"), [((32.9, 32.0), "better"), ((33.0, 32.0), "not comparable")]
)
def test_l0_gap_of_three_per_cent(sizes, verdict):
    judged = judge(CLAIM, rows([0.82, 0.83], [0.80, 0.81], l0=sizes))
    assert judged["verdict"] == verdict
    assert verdict == "better" or "33.00 against 32.00" in judged["reason"]


def test_unhealthy_undefined_and_unpaired_are_not_comparable():
    unhealthy = judge(CLAIM, rows([0.82, 0.83], [0.80, 0.81], healthy=False))
    assert unhealthy["verdict"] == "not comparable" and "batch_topk-s0" in unhealthy["reason"]
    undefined = judge(CLAIM, rows([0.82, None], [0.80, 0.81]))
    assert undefined["verdict"] == "not comparable" and "batch_topk-s1" in undefined["reason"]
    assert undefined["value"] is None
    unpaired = [r | {"seed": 0 if r["variant"] == "topk" else 1} for r in rows([0.8], [0.8])]
    assert "no seed in common" in judge(CLAIM, unpaired)["reason"]


def test_merged_facts():
    assert merged([{"model": "pylm", "seed": 0}, {"model": "pylm", "seed": 1}]) == {
        "model": "pylm",
        "seed": [0, 1],
    }


def test_a_plan_of_many_contrasts_needs_more_than_one():
    """Differences .02, .04, .03: t = 27 ** .5 on 2 degrees of freedom, p = 1 - (27 / 29) ** .5."""
    clear, noise = rows([0.82, 0.85, 0.83], [0.80, 0.81, 0.80]), rows([0.8, 0.9], [0.9, 0.8])
    alone = judge(CLAIM, clear)
    assert alone["verdict"] == "better" and alone["p"] == pytest.approx(1 - (27 / 29) ** 0.5)
    other = Contrast("explained_variance", baseline="b", treatment="a")
    renamed = [r | {"variant": {"batch_topk": "a", "topk": "b"}[r["variant"]]} for r in noise]
    both = judging.judge([CLAIM, other], [*clear, *renamed])
    assert [entry["verdict"] for entry in both] == ["no difference shown"] * 2
    assert both[0]["p"] == pytest.approx(2 * alone["p"])
    assert "not among 2 contrasts (corrected p 0.07)" in both[0]["reason"]
    assert (both[0]["value"], both[0]["low"]) == (alone["value"], alone["low"])


def test_what_cannot_be_compared_costs_the_others_nothing():
    clear = rows([0.82, 0.85, 0.83], [0.80, 0.81, 0.80])
    missing = Contrast("explained_variance", baseline="topk", treatment="absent")
    both = judging.judge([CLAIM, missing], clear)
    assert [entry["verdict"] for entry in both] == ["better", "not comparable"]
    assert both[1]["p"] is None and both[1]["detectable"] is None


def test_the_detectable_difference_follows_the_spread():
    narrow = judge(CLAIM, rows([0.82, 0.83, 0.82], [0.80, 0.81, 0.80]))
    wide = judge(CLAIM, rows([0.82, 0.93, 0.72], [0.80, 0.81, 0.80]))
    assert 0 <= narrow["detectable"] < 1e-9 and wide["detectable"] > 0.2
    assert judge(CLAIM, rows([0.9], [0.1]))["detectable"] is None
