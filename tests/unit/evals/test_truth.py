"""Ground-truth scores: closed forms, chance, and what dead latents and other scales may change."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from in_world import as_held_out
from saelab.evals import metric_of
from saelab.evals.truth import measure as truth
from saelab.evals.truth.measure import Totals, TruthData, measure, prepare
from saelab.synth.directions import orthonormal
from saelab.synth.world import Sample, World

F, D, RATE = 8, 16, 0.25


@dataclass(frozen=True)
class TinyProcess:
    """Orthogonal features, each active a quarter of the time, with codes from .5 to 1.5; x is their
    sum and nothing else.
    """

    features: Tensor
    groups: Mapping[str, range] = field(
        default_factory=lambda: {"front": range(3), "back": range(3, F)}
    )

    def draw(self, n: int, generator: torch.Generator) -> Sample:
        active = torch.rand(n, F, generator=generator) < RATE
        codes = active * (0.5 + torch.rand(n, F, generator=generator))
        return Sample(codes @ self.features, codes)


@dataclass(frozen=True)
class LeastSquares:
    """Reads the code of each row by projection on it, exact for the orthogonal features; `gain`
    scales codes alone.
    """

    directions: Tensor  # [L, D]
    gain: float = 1.0
    hook: None = None

    def encode(self, x: Tensor) -> Tensor:
        pre = (
            x @ (self.directions / self.directions.square().sum(1, keepdim=True).clamp_min(1e-8)).T
        )
        return self.gain * pre * (pre > 0.1)

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.directions


@pytest.fixture(scope="module")
def features():
    return orthonormal(D, torch.Generator().manual_seed(0))[:F]


@pytest.fixture(scope="module")
def world(features):
    return World("tiny", TinyProcess(features), seed=0, batch=64)


@pytest.fixture(scope="module")
def data(world):
    return prepare(as_held_out(world))


def values(dictionary, data):
    return {name: score.value for name, score in measure(dictionary, data).scores.items()}


def close(value, expected, tolerance=1e-5):
    assert value == pytest.approx(float(expected), rel=tolerance, abs=tolerance)


def test_the_sample_is_held_out_and_the_same_every_time(world, data):
    again = prepare(as_held_out(World("tiny", world.process, seed=0, batch=64)))
    assert torch.equal(again.x, data.x)
    assert torch.equal(again.active, data.active)
    assert not torch.equal(
        prepare(as_held_out(World("tiny", world.process, seed=1, batch=64))).x, data.x
    )
    assert len(data.x) >= 20_000
    codes = world.sample(len(data.x), "truth").codes
    assert torch.equal(data.active, codes > 0)
    seen = {tuple(row) for row in codes.tolist()}
    for step in range(3):  # training never sees it
        batch = world.sample(64, step)
        several = (batch.codes > 0).sum(1) > 1  # none or one active may well repeat
        assert several.sum() > 20
        assert not seen & {tuple(row) for row in batch.codes[several].tolist()}


def test_oracle_is_perfect(features, data):
    scores = values(LeastSquares(features), data)
    for name in ("mcc", "precision", "recall", "f1", "uniqueness", "explained_variance"):
        close(scores[name], 1)
    close(scores["shrinkage"], 1)
    close(scores["dead"], 0)
    close(scores["l0"], data.active.sum(1).double().mean())
    assert scores["l0"] == pytest.approx(RATE * F, rel=0.02)


def test_order_and_sign_of_latents_do_not_matter(features, data):
    order = torch.randperm(F, generator=torch.Generator().manual_seed(1))
    assert values(LeastSquares(features[order]), data) == pytest.approx(
        values(LeastSquares(features), data)
    )
    flipped = scores_of(data, -features, data.active.float(), torch.zeros_like(data.x))
    close(flipped["mcc"].value, 1)
    close(flipped["f1"].value, 1)


def scores_of(data, directions, z, x_hat):
    """Scores of codes and reconstructions that are given."""
    totals = Totals(directions, data.features)
    totals.add(data.active, data.x, z, x_hat)
    return totals.scores()


def test_permuted_codes_are_at_chance(features, data):
    """Right directions, codes of the next latent: independent of the truth, so precision and recall
    are the rate.
    """
    z = data.active.roll(1, 1).float()
    scores = scores_of(data, features, z, z @ features)
    close(scores["mcc"].value, 1)  # of directions alone
    for name in ("precision", "recall", "f1"):
        assert scores[name].value == pytest.approx(RATE, abs=0.02)


def test_random_directions_are_at_chance(features, data):
    """The world's own features, but none of the SAE's: |cosine| of random directions of width 16 is
    about .2 on average.
    """
    directions = torch.randn(F, D, generator=torch.Generator().manual_seed(3))
    scores = values(LeastSquares(directions), data)
    assert 0.2 < scores["mcc"] < 0.6
    assert scores["precision"] < 0.5
    assert scores["f1"] < 0.5


def test_dead_latents_change_only_what_counts_latents(features, data):
    """As many dead latents as live ones halve every mean over latents; matching and reconstruction
    stay.
    """
    before = values(LeastSquares(features), data)
    after = values(LeastSquares(torch.cat([features, torch.zeros(F, D)])), data)
    for name in ("mcc", "explained_variance", "shrinkage", "l0"):
        close(after[name], before[name])
    for name in ("precision", "recall", "f1", "uniqueness"):
        close(after[name], before[name] / 2)
    assert (before["dead"], after["dead"]) == (0, 0.5)


def test_halving_codes_changes_no_scale_free_score(features, data):
    directions = features + 0.1 * torch.randn(F, D, generator=torch.Generator().manual_seed(4))
    before, after = (
        values(LeastSquares(directions), data),
        values(LeastSquares(directions, gain=0.5), data),
    )
    for name in ("mcc", "precision", "recall", "f1", "uniqueness", "dead", "l0"):
        assert after[name] == before[name]
    close(after["shrinkage"], before["shrinkage"] / 2)
    assert after["explained_variance"] < before["explained_variance"] - 0.05
    half = values(LeastSquares(features, gain=0.5), data)  # exact: the error is x / 2
    x = data.x.double()
    variance = x.square().sum(1).mean() - x.mean(0).square().sum()
    close(half["explained_variance"], 1 - x.square().sum(1).mean() / 4 / variance)


def test_a_detector_that_fires_too_often_has_a_closed_form(features, data):
    """A latent that always fires: precision is the rate, recall 1. One that fires for feature 0 but
    points at 1: chance.
    """
    z = torch.zeros(len(data.x), 2)
    z[:, 0], z[:, 1] = 1, data.active[:, 0].float()
    scores = scores_of(data, features[:2], z, torch.zeros_like(data.x))
    rate = data.active.double().mean(0)
    both = (data.active[:, 0] & data.active[:, 1]).double().mean()
    close(scores["precision"].value, (rate[0] + both / rate[0]) / 2)
    close(scores["recall"].value, (1 + both / rate[1]) / 2)
    close(scores["f1"].value, (2 * rate[0] / (1 + rate[0]) + 2 * both / (rate[0] + rate[1])) / 2)
    close(scores["l0"].value, 1 + rate[0])
    assert scores["shrinkage"].value == 0


def test_fewer_latents_than_features_are_judged_by_themselves(features, data):
    scores = values(LeastSquares(features[:3]), data)
    for name in ("mcc", "precision", "recall", "f1", "uniqueness"):
        close(scores[name], 1)


def test_duplicates_are_not_unique_and_matched_once(features, data):
    directions = torch.cat([features, features[:2]])
    scores = values(LeastSquares(directions), data)
    close(scores["uniqueness"], F / (F + 2))
    close(scores["mcc"], 1)
    close(scores["f1"], 1)


def test_parts_give_what_the_whole_gives(features, data, monkeypatch):
    directions = features + 0.2 * torch.randn(F, D, generator=torch.Generator().manual_seed(5))
    whole = values(LeastSquares(directions), data)
    monkeypatch.setattr(truth, "CODES_AT_ONCE", 1_000)
    assert values(LeastSquares(directions), data) == pytest.approx(whole, rel=1e-9)


def test_undefined_says_why(features):
    constant = TruthData(
        features, {"all": range(F)}, torch.full((50, D), 0.7), torch.ones(50, F, dtype=torch.bool)
    )
    scores = measure(LeastSquares(features), constant).scores
    assert scores["explained_variance"].value is None
    assert "constant" in scores["explained_variance"].reason
    assert scores["shrinkage"].value is not None
    nothing = TruthData(
        features, {"all": range(F)}, torch.zeros(50, D), torch.zeros(50, F, dtype=torch.bool)
    )
    result = measure(LeastSquares(features), nothing)
    assert result.scores["shrinkage"].value is None
    assert "zero" in result.scores["shrinkage"].reason
    assert result.scores["dead"].value == 1
    assert (
        result.scores["precision"].value
        == result.scores["recall"].value
        == result.scores["f1"].value
        == 0
    )
    json.dumps(result.to_json(), allow_nan=False)  # raises on NaN


def test_better_says_which_way_is_up(features, data):
    scores = measure(LeastSquares(features), data).scores
    neither = {name for name in scores if metric_of(name).better == "neither"}
    assert neither == {"l0", "shrinkage"}
    assert [name for name in scores if metric_of(name).better == "lower"] == ["dead"]


def test_details_draw_the_features_in_order(features, data):
    order = torch.tensor([2, 0, 1])
    directions = torch.cat([torch.zeros(1, D), features[3:], features[order], 2 * features[:1]])
    details = measure(LeastSquares(directions), data).details
    matrix = torch.tensor(details["cosine"])
    assert matrix.shape == (F + 2, F)
    assert torch.equal(matrix[:F], 100 * torch.eye(F, dtype=torch.long))
    assert sorted(details["order"]) == list(range(F + 2))
    assert details["order"][3:F] == list(range(1, F - 2))
    assert details["order"][1:3] == [F, F - 2]  # the latents of features 1 and 2
    # the zero row and one of the two copies of feature 0
    assert set(details["order"][F:]) <= {0, F - 1, F + 1}
    assert details["matched"] == [1.0] * F
    assert details["frequency"] == pytest.approx(data.active.double().mean(0).tolist(), abs=1e-6)
    assert details["groups"] == {"front": [0, 3], "back": [3, F]}


def test_unmatched_latents_are_drawn_next_to_those_of_the_same_feature(features, data):
    # worse copies, so that the exact ones are matched
    rough = features[[5, 1, 5]] + 0.3 * features[[0, 0, 2]]
    details = measure(LeastSquares(torch.cat([features, rough])), data).details
    assert details["order"] == [*range(F), F + 1, F, F + 2]


def test_the_picture_of_a_large_world_is_cut(features, data, monkeypatch):
    monkeypatch.setattr(truth, "PICTURE", 4)
    details = measure(LeastSquares(features), data).details
    assert torch.equal(torch.tensor(details["cosine"]), 100 * torch.eye(4, dtype=torch.long))
    assert len(details["matched"]) == len(details["frequency"]) == F


def test_bad_dictionaries_are_refused(features, data):
    with pytest.raises(ValueError, match=r"directions are \[3, 5\] and features \[8, 16\]"):
        measure(LeastSquares(torch.ones(3, 5)), data)
    with pytest.raises(ValueError, match="not finite"):
        measure(LeastSquares(features * float("inf")), data)
