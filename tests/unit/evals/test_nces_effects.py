"""NCES on a language model: what single latents score, what a dictionary scores, and what is
refused.
"""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from saelab.effects.intervene import TYPES
from saelab.evals import EVALS
from saelab.evals.common.interventions import latents_of, rank_correlation
from saelab.evals.nces.effects import Budget, Contexts, estimate, nces
from saelab.evals.nces.on_models import NcesData, measure, prepare
from saelab.evals.nces.summary import _median
from saelab.evals.result import Result
from saelab.types import Hook, Windows
from toy_lm import BOS, D, ToyDictionary, ToyLM, held, identity, windows, zero

CENTRE = ToyLM().table.mean(0)


class Sided(ToyDictionary):
    """A latent for each side of each dimension, seen from the middle of the activations."""

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x - CENTRE)


def sided(*, scale: Tensor | float = 1.0) -> Sided:
    both = identity().directions
    return Sided((both / scale).T, both * scale, b_dec=CENTRE)


class Reads(ToyLM):
    """Reads the first `n` dimensions of x and nothing else."""

    def __init__(self, n: int, **settings: float):
        super().__init__(**settings)
        self.n = n

    def resume(self, x: Tensor, state: Any, since: int = 0) -> Tensor:
        return super().resume(x * (torch.arange(D) < self.n), state, since)


@pytest.fixture(scope="module")
def data() -> NcesData:
    lm = Reads(3)
    return prepare(held(lm, windows(lm, n=40)))


@pytest.fixture(scope="module")
def found(data) -> Result:
    return measure(sided(), data, draws=4)


def value(result: Result, name: str) -> float:
    score = result.scores[name].value
    assert score is not None
    return score


# Single latents -----------------------------------------------------------------------------------


def test_nces_is_minus_one_for_what_is_not_read_and_above_zero_for_what_is(found):
    assert len(found.details["latents"]) == 2 * D
    assert (
        sum(row["zero"]["nces"] > 0 for row in found.details["latents"] if row["latent"] % D < 3)
        >= 3
    )
    for row in found.details["latents"]:
        for name in TYPES:
            if row["latent"] % D < 3:
                assert row[name]["nces"] > -0.99 and row[name]["effect"] > 0
            else:
                assert row[name]["effect"] == 0 and row[name]["control"] > 0
                assert row[name]["nces"] == row[name]["low"] == row[name]["high"] == -1
    estimated = dict(
        zip(*(found.details["estimates"][key] for key in ("latent", "effect")), strict=True)
    )
    assert all((estimated[j] == 0) == (j % D >= 3) for j in estimated)


def test_what_the_model_alone_reads_scores_one():
    lm = Reads(1)
    result = measure(sided(), prepare(held(lm, windows(lm, n=40))))
    for row in result.details["latents"]:
        expected = 1 if row["latent"] % D == 0 else -1
        assert all(row[name]["nces"] == pytest.approx(expected, abs=1e-4) for name in TYPES)
    for name in TYPES:
        assert value(result, f"nces_{name}_share_positive") == pytest.approx(1 / D)
        assert value(result, f"nces_{name}_median") == pytest.approx(-1)


def test_the_scale_of_codes_and_decoder_does_not_matter(data, found):
    scaled = measure(sided(scale=torch.linspace(0.1, 9, 2 * D).unsqueeze(1)), data, draws=4)
    for name, score in found.scores.items():
        assert value(scaled, name) == pytest.approx(score.value, rel=1e-3, abs=1e-5)


def test_the_estimate_is_close_where_predictions_hardly_change():
    """Where predictions stay close to uniform; what is left is the bend of tanh and the chance in
    the labels.
    """
    lm = ToyLM(sharpness=0.05)
    data = prepare(held(lm, windows(lm, n=200)))
    result = measure(sided(), data, contexts=400, n_latents=4)
    exact = torch.tensor([row["zero"]["effect"] for row in result.details["latents"]])
    guess = torch.tensor([row["estimate"] for row in result.details["latents"]])
    assert float(guess.sum() / exact.sum()) == pytest.approx(1, abs=0.25)


def test_the_estimates_control_is_that_of_directions_drawn():
    """E over u ~ N(0, P Sigma P) of (u . g)^2, relative to its trace."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(D, D, generator=generator)
    covariance, gradients = root @ root.T, torch.randn(1, 50, D, generator=generator)
    latents = latents_of(sided(), [torch.ones(50, 2 * D)])
    guess = estimate(latents, gradients, covariance, torch.zeros(50).long())
    d = latents.directions[0]
    u = torch.randn(200_000, D, generator=generator) @ root.T
    u -= (u @ d).unsqueeze(1) * d
    second = u.T @ u / len(u)
    expected = ((gradients[0] @ second) * gradients[0]).sum(1).mean() / second.trace() / 2
    assert float(guess.against[0]) == pytest.approx(float(expected), rel=0.02)
    assert float(guess.effect[0]) == pytest.approx(
        float(gradients[0, :, 0].square().mean() / 2), rel=1e-5
    )


def test_means_and_intervals_are_over_contexts_of_one_latent():
    """Two latents of opposite verdicts: averaging over latents instead would give 0 for both."""
    own = torch.tensor([3.0, 1.0]).repeat_interleave(40)
    contexts = Contexts(
        torch.arange(2).repeat_interleave(40), torch.arange(80), own, torch.tensor(4.0) - own, 2
    )
    assert torch.allclose(contexts.overall.nces, torch.tensor([0.5, -0.5]))
    low, high = contexts.intervals()
    assert torch.allclose(low, contexts.overall.nces) and torch.allclose(
        high, contexts.overall.nces
    )
    sums = contexts.sums(torch.arange(80) // 20)  # four documents
    assert sums.own[[0, 3]].tolist() == [[60, 0], [0, 20]]
    assert sums.control[[0, 3]].tolist() == [[20, 0], [0, 60]]
    assert sums.count[[0, 3]].tolist() == [[20, 0], [0, 20]]
    varied = replace(contexts, own=own + torch.arange(80) % 2)
    low, high = varied.intervals()
    assert (
        (low < varied.overall.nces).all()
        and (varied.overall.nces < high).all()
        and (high - low < 0.2).all()
    )
    few = Contexts(torch.zeros(29).long(), torch.arange(29), torch.ones(29), torch.ones(29), 1)
    assert few.intervals()[0].isnan().all() and few.overall.nces == 0


def test_small_parts():
    assert nces(torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 2, 0])).tolist()[:2] == [1, -1]
    assert nces(torch.zeros(1), torch.zeros(1)).isnan().all()
    a = torch.tensor([1.0, 2, 3, 4, 5, torch.nan])
    assert rank_correlation(a, a**3) == pytest.approx(1) and rank_correlation(
        a, -a
    ) == pytest.approx(-1)
    assert (
        rank_correlation(a[:4], a[:4]) is None
        and rank_correlation(torch.ones(9), torch.arange(9)) is None
    )
    median = _median(
        torch.tensor([[3.0, 1.0, 2.0], [9.0, 9.0, 9.0]]),
        torch.tensor([[1.0, 1.0, 5.0], [0.0, 0.0, 0.0]]),
    )
    assert median[0] == 2 and median[1].isnan()


# Dictionaries -------------------------------------------------------------------------------------


def test_scores_are_those_of_the_rows(found):
    assert {*found.scores} == {
        *(f"nces_{name}{part}" for name in TYPES for part in ("", "_median", "_share_positive")),
        *(
            "nces_excluded",
            "causal_mass",
            "nces_agreement",
            "nces_fisher",
            "causal_mass_fisher",
            "nces_fisher_spearman",
        ),
    }
    frequency = torch.tensor([row["frequency"] for row in found.details["latents"]])
    for name in TYPES:
        each = torch.tensor([row[name]["nces"] for row in found.details["latents"]])
        score = found.scores[f"nces_{name}"]
        assert score.value == pytest.approx(
            float((frequency * each).sum() / frequency.sum()), abs=1e-5
        )
        assert (
            score.low is not None
            and score.high is not None
            and score.low < score.value < score.high
        )
        positive = sum(row[name]["low"] > 0 for row in found.details["latents"]) / len(
            found.details["latents"]
        )
        assert value(found, f"nces_{name}_share_positive") == pytest.approx(positive)
    mass = sum(row["frequency"] * row["zero"]["effect"] for row in found.details["latents"])
    assert value(found, "causal_mass") == pytest.approx(mass, rel=1e-4)
    assert value(found, "causal_mass_fisher") > 0 and value(found, "nces_excluded") == 0
    assert value(found, "nces_agreement") > 0.5 and value(found, "nces_fisher_spearman") > 0.5
    assert (
        json.loads(json.dumps(found.to_json()))["scores"]["nces_zero"]["value"]
        == found.scores["nces_zero"].value
    )


def test_half_of_the_latents_are_those_of_the_largest_estimate_and_the_others_stand_for_the_rest(
    data, found
):
    part = measure(sided(), data, n_latents=6)
    mass = {row["latent"]: row["frequency"] * row["estimate"] for row in found.details["latents"]}
    largest = sorted(mass, key=lambda j: -mass[j])[:3]
    weight = {row["latent"]: row["weight"] for row in part.details["latents"]}
    assert len(weight) == 6 and all(weight[j] == 1 for j in largest)
    assert sum(weight.values()) == pytest.approx(2 * D)
    assert (
        part.details["facts"]["measured"] == 6
        and part.details["facts"]["dead"] == part.details["facts"]["rare"] == 0
    )


def test_dead_and_rare_latents_are_counted_and_in_no_mean(data, found):
    both = sided().directions
    rows = torch.cat([both, torch.zeros(5, D), both[:1]])
    encoder = torch.cat([both, torch.zeros(5, D), 0 * both[:1]]).T

    class WithRare(Sided):
        def encode(self, x: Tensor) -> Tensor:
            z = super().encode(x)
            z[:29, -1] = 1.0
            return z

    result = measure(WithRare(encoder, rows), data, draws=4)
    assert (result.details["facts"]["dead"], result.details["facts"]["rare"]) == (5, 1)
    assert value(result, "nces_excluded") == pytest.approx(6 / (2 * D + 6))
    for name in ("nces_fisher", "causal_mass_fisher"):
        assert value(result, name) == pytest.approx(value(found, name), rel=1e-5)
    assert len(result.details["latents"]) == 2 * D


def test_a_dictionary_that_never_fires_is_undefined(data):
    result = measure(zero(), data)
    assert value(result, "nces_excluded") == 1 and not result.details["latents"]
    rest = [score for name, score in result.scores.items() if name != "nces_excluded"]
    assert len(rest) == 20
    assert all(
        score.value is None and score.reason == "no latent is active on 30 tokens" for score in rest
    )


def test_measuring_is_deterministic_and_evaluates_no_bos(data, found):
    again = measure(sided(), data, draws=4)
    assert again.to_json() == found.to_json()
    assert measure(sided(), data, draws=4, seed=1).to_json() != found.to_json()
    assert (data.text.position > 0).all() and len(data.x) == 40 * 8


def test_interventions_keep_what_the_dictionary_does_not_reconstruct(data):
    """With half of the latents the reconstruction is bad, and the effects of the others are what
    they were.
    """
    both = sided().directions
    half = Sided(both[:D].T, both[:D], b_dec=torch.full((D,), 50.0))
    chosen = list(range(D))
    whole, part = (measure(each, data, chosen=chosen, draws=4) for each in (sided(), half))
    for a, b in zip(whole.details["latents"], part.details["latents"], strict=True):
        assert a["zero"] == b["zero"]


def test_it_is_in_the_table():
    lm = ToyLM()
    prepared = EVALS["nces"].prepare(held(lm, windows(lm, n=24)))
    assert EVALS["nces"].measure(sided(), prepared).scores["nces_zero"].value is not None


# Refused ------------------------------------------------------------------------------------------


def test_what_cannot_be_measured_is_refused(data):
    with pytest.raises(
        ValueError, match=r"latents 12 do not exist; the dictionary has latents 0 to 11"
    ):
        measure(sided(), data, chosen=[0, 12])
    dead = Sided(torch.eye(D) * (torch.arange(D) != 2), torch.eye(D))
    with pytest.raises(
        ValueError, match=r"latents 2 are active on fewer than 30 of 320 positions \(dead or rare\)"
    ):
        measure(dead, data, chosen=[1, 2])
    with pytest.raises(ValueError, match="width 4, the activations 6"):
        measure(ToyDictionary(torch.eye(4), torch.eye(4)), data)
    elsewhere = sided()
    elsewhere.hook = Hook(0)
    with pytest.raises(
        ValueError, match=r"reads blocks.0.hook_resid_post, the data blocks.1.hook_resid_post"
    ):
        measure(elsewhere, data)
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"contexts": 29}, "29 contexts per latent; give at least 30"),
        ({"draws": 0}, "0 control draws"),
        ({"n_latents": 0}, "n_latents is 0"),
        ({"types": ("zero", "nothing")}, "give some of zero, mean, resample, noise, steer"),
        ({"types": ()}, "give some of zero, mean, resample, noise, steer"),
    )
    for settings, message in refused:
        with pytest.raises(ValueError, match=message):
            measure(sided(), data, **settings)
    assert Budget(("zero",), 30, 1).following == 16


def test_an_effect_without_a_model_is_a_type_error():
    lm = ToyLM()
    with pytest.raises(TypeError, match="ToyDictionary is no language model"):
        prepare(held(identity(), windows(lm)))  # pyright: ignore[reportArgumentType]
    empty = [(replace(w, keep=torch.zeros_like(w.keep)), state) for w, state in windows(lm)]
    with pytest.raises(ValueError, match="no token is left to evaluate"):
        prepare(held(lm, empty))
    broken = [
        (Windows(w.x * torch.nan, w.tokens, w.doc, w.pos, w.tokens != BOS), state)
        for w, state in windows(lm)
    ]
    with pytest.raises(ValueError, match=r"activations at blocks.1.hook_resid_post are not finite"):
        prepare(held(lm, broken))


def test_intervals_know_that_latents_were_drawn(data, found):
    """What other draws of latents say lies within the interval, mostly; over documents alone it
    would not.
    """
    whole = value(found, "nces_zero")
    parts = [measure(sided(), data, n_latents=8, seed=seed, types=("zero",)) for seed in range(12)]
    inside = [
        part.scores["nces_zero"].low <= whole <= part.scores["nces_zero"].high for part in parts
    ]  # pyright: ignore
    fixed = [
        measure(
            sided(),
            data,
            chosen=[row["latent"] for row in part.details["latents"]],
            types=("zero",),
        )
        for part in parts
    ]
    width = lambda each: each.scores["nces_zero"].high - each.scores["nces_zero"].low  # noqa: E731  # pyright: ignore
    assert sum(inside) >= 9
    assert sum(map(width, parts)) > 1.2 * sum(map(width, fixed))
