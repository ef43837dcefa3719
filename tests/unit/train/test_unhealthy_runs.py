"""Runs that go wrong: what the loop says of them, which one it was, and where it stops."""

from dataclasses import replace

import pytest
import torch

from saelab.runs import Spec
from saelab.terms.base import Event, Objective, Term
from saelab.testing.variants import SparseSource
from saelab.train import NonFiniteTraining, Training
from saelab.types import InputStats, Tokens
from saelab.variants import VARIANTS, build, settings_of
from unit.train.trainings import a_run, finished


def zeroed(spec, d_in, seed, hook):
    """The published failure: an SAE whose weights are all 0."""
    variant = build(spec, d_in, seed, hook)
    with torch.no_grad():
        for parameter in variant.sae.parameters():
            parameter.zero_()
    return variant


class BrokenSource(SparseSource):
    """Turns to NaN from batch `since` on."""

    def __init__(self, since: int):
        super().__init__()
        self.since = since

    def batches(self, main, start, sides=()):
        for views, following in super().batches(main, start, sides):
            if following.batch > self.since:
                views = replace(views, main=Tokens(views.main.flat * float("nan")))
            yield views, following


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_zero_initialised_sae_ends_unhealthy(variant):
    few = {name: 500 for name in settings_of(variant) if name == "rows"}  # of a metric
    training = Training([a_run(variant, settings=few)], SparseSource(), build=zeroed)
    result = finished(training).results()[0]
    assert not result.health.healthy
    assert [p.split(":")[0] for p in result.health.problems] == [
        "ZeroWeights",
        "NoBetterThanMean",
    ]
    assert result.measured.l0 == 0 and result.measured.dead == 1.0
    assert "100% of the latents are dead" in result.health.warnings[0]


def test_a_run_that_is_judged_before_its_first_step():
    result = Training([a_run()], SparseSource()).results()[0]
    assert any(problem.startswith("NoSteps") for problem in result.health.problems)


@pytest.mark.parametrize(
    "variant", [v for v in VARIANTS if not build(Spec(v, 64, 4.0), 16, 0).needs]
)
def test_nan_activations_stop_the_run_and_name_it(variant):
    with pytest.raises(
        NonFiniteTraining,
        match=rf"^{variant}, seed 3: the loss became nan at step 1; the activations themselves",
    ):
        finished(Training([a_run(variant, seed=3)], BrokenSource(0)))


def test_nan_activations_are_refused_by_what_is_needed_of_the_stream():
    class Broken(SparseSource):
        def draw(self, n, generator):
            return super().draw(n, generator) * (float("nan") if hasattr(self, "lm") else 1.0)

    with pytest.raises(
        ValueError, match=r"predictions from the activations at blocks\.0\.hook_resid_post are NaN"
    ):
        finished(Training([a_run("causal")], Broken()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda step: step.x.mean() / 0 - step.x.mean() / 0, "the term 'wrong' came first, from"),
        (lambda step: step.x.mean() * 3e38, "their weighted sum is not; lower the weights"),
    ],
)
def test_the_term_that_is_not_finite_is_named(change, words):
    def wrong(spec, d_in, seed, hook):
        made = build(spec, d_in, seed, hook)
        terms = (*made.objective.terms, Term("wrong", change, 1e6))
        return replace(made, objective=Objective(*terms))

    with pytest.raises(NonFiniteTraining, match=words):
        finished(Training([a_run()], SparseSource(), build=wrong))


def test_nan_later_on_and_the_place_in_the_group():
    source = BrokenSource(7)
    with pytest.raises(NonFiniteTraining, match="at step 8") as error:
        finished(Training([a_run(seed=1), a_run(seed=2)], source))
    assert error.value.run == 0


def test_a_weight_that_is_no_longer_finite_is_named():
    def poisoned(spec, d_in, seed, hook):
        def poison(sae, optimizer, step):
            with torch.no_grad():
                sae.b_enc[0] = float("inf")

        return replace(build(spec, d_in, seed, hook), events=(Event((0.5,), poison),))

    with pytest.raises(
        NonFiniteTraining, match="topk, seed 0: b_enc is no longer finite at step 15"
    ) as error:
        finished(Training([a_run()], SparseSource(), build=poisoned))
    assert error.value.run == 0


def test_constant_activations_are_undefined_not_good():
    class Constant(SparseSource):
        def draw(self, n, generator):
            return torch.ones(n, self.d_in)

    source = Constant()
    source.stats = InputStats(torch.ones(16), 0.25, 10)
    result = finished(Training([a_run()], source)).results()[0]
    assert [p.split(":")[0] for p in result.health.problems if "Variance" in p] == [
        "UndefinedVariance"
    ]
