"""The health gate: every verdict, with its name and its numbers."""

from dataclasses import replace

import pytest
from trainings import a_run, finished

from saelab.runs import Run, Source, Spec
from saelab.testing.fakes import SparseSource
from saelab.train import Training
from saelab.train.health import Measured, NonFiniteTraining, UnhealthyRun, check

RUN = Run(Spec("topk", 64, 32.0), Source())
GOOD = Measured(steps=100, l0=32.5, explained_variance=0.8, dead=0.1)


def test_a_good_run_is_healthy_and_silent():
    assert check(RUN, GOOD) == check(RUN, replace(GOOD, l0=33.5))  # within 5 %
    health = check(RUN, GOOD)
    assert health.healthy and not health.problems and not health.warnings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, ("NoSteps", "0 steps", "raise tokens or lower batch")),
        ({"l0": 0.0}, ("NothingActive", "L0 is 0")),
        ({"l0": 0.0, "reads_nothing": True}, ("ZeroWeights", "never initialised")),
        ({"explained_variance": 0.0}, ("NoBetterThanMean", "0.000 is not above 0")),
        ({"explained_variance": -0.25}, ("NoBetterThanMean", "-0.250", "no better than the mean")),
        ({"explained_variance": float("nan")}, ("UndefinedVariance", "constant")),
        ({"explained_variance": float("-inf")}, ("UndefinedVariance",)),
    ],
)
def test_problems_are_named(change, words):
    health = check(RUN, replace(GOOD, **change))
    assert not health.healthy and len(health.problems) == 1
    assert all(word in health.problems[0] for word in words), health.problems


def test_a_penalty_that_silenced_everything_is_named():
    fixed = replace(RUN, spec=Spec("standard", 64, 32.0, {"coefficient": 7.5}))
    (problem,) = check(fixed, replace(GOOD, l0=0.0)).problems
    assert problem.endswith("the penalty's coefficient 7.5 is far too strong, lower it")


def test_all_problems_are_told_at_once():
    health = check(RUN, Measured(steps=0, l0=0.0, explained_variance=-1.0, dead=1.0))
    assert [problem.split(":")[0] for problem in health.problems] == [
        "NoSteps",
        "NothingActive",
        "NoBetterThanMean",
    ]
    assert len(health.warnings) == 1  # dead; an L0 of 0 is no matter of per cent


@pytest.mark.parametrize(("dead", "warned"), [(0.2, False), (0.21, True), (1.0, True)])
def test_a_high_dead_share_warns(dead, warned):
    health = check(RUN, replace(GOOD, dead=dead))
    assert health.healthy and bool(health.warnings) is warned
    assert not warned or f"{dead:.0%} of the latents are dead" in health.warnings[0]


@pytest.mark.parametrize(
    ("l0", "warned"), [(33.5, False), (33.7, True), (30.5, False), (30.3, True)]
)
def test_a_missed_l0_warns(l0, warned):
    health = check(RUN, replace(GOOD, l0=l0))
    assert health.healthy and bool(health.warnings) is warned
    assert not warned or f"L0 is {l0:.1f}, over 5 % from the 32 asked for" in health.warnings[0]


def test_a_block_of_latents_that_went_silent_is_named():
    health = check(RUN, replace(GOOD, silent=("slow",)))
    assert health.healthy and "the block 'slow' went silent: fewer than 0.02" in health.warnings[0]
    # nothing persists in this stream, so a block that must predict along it gives up
    for weight, said in ((30.0, True), (0.0, False)):
        run = a_run("temporal", steps=150, settings={"weight": weight, "untied": 0.0})
        (trained,) = finished(Training([run], SparseSource())).results()
        assert any("'slow' went silent" in text for text in trained.health.warnings) == said


def test_a_fixed_coefficient_leaves_the_l0_to_itself():
    fixed = replace(RUN, spec=Spec("standard", 64, 32.0, {"coefficient": 0.1}))
    assert not check(fixed, replace(GOOD, l0=5.0)).warnings
    steered = replace(RUN, spec=Spec("standard", 64, 32.0, {"coefficient": 0.0}))
    assert check(steered, replace(GOOD, l0=5.0)).warnings


def test_non_finite_training_is_an_unhealthy_run_and_knows_which():
    error = NonFiniteTraining("words", 3)
    assert isinstance(error, UnhealthyRun) and error.run == 3 and str(error) == "words"
