"""Ground-truth scores equal those of sae-lens on identical inputs; `benchmarks/sae_lens_truth.py`
made the stored values.
"""

import json
from pathlib import Path

import pytest

from saelab.evals.truth.measure import Totals
from saelab.store import read_tensors

STORED = Path(__file__).with_name("sae_lens_truth.json")
VALUES = json.loads(STORED.read_text(encoding="utf-8"))["values"]
TENSORS = read_tensors(STORED.with_suffix(".safetensors"))
WORLD = {name: TENSORS[name] for name in ("features", "codes", "x")}


def sae(case):
    return {name: TENSORS[f"{case}.{name}"] for name in ("directions", "z", "x_hat")}


@pytest.mark.parametrize("case", VALUES)
def test_every_score_equals_that_of_sae_lens(case):
    whole = (slice(None),)
    parts = (slice(0, 3), slice(3, 150), slice(150, None))
    for pieces in (whole, parts):
        tensors = sae(case)
        totals = Totals(tensors["directions"], WORLD["features"])
        for part in pieces:
            active, x = WORLD["codes"][part] > 0, WORLD["x"][part]
            totals.add(active, x, tensors["z"][part], tensors["x_hat"][part])
        scores = {name: score.value for name, score in totals.scores().items()}
        assert scores.keys() == VALUES[case].keys()
        assert scores == pytest.approx(VALUES[case], rel=0, abs=1e-6)


def test_the_stored_cases_reach_every_corner():
    """Dead latents, a zero direction that fires, duplicates, more and fewer latents than features,
    a silent feature, x = 0.
    """
    features, active = WORLD["features"], WORLD["codes"] > 0
    assert not active[:, 3].any()
    assert (WORLD["x"].norm(dim=1) == 0).any()
    widths = set()
    for case in VALUES:
        fires, directions = sae(case)["z"] != 0, sae(case)["directions"]
        widths.add(len(directions) > len(features))
        assert 0 < VALUES[case]["dead"] < 1
        assert (fires.any(0) & (directions.norm(dim=1) == 0)).any()
        assert len(directions.unique(dim=0)) < len(directions)
    assert widths == {True, False}
