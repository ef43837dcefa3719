"""Every evaluation through one battery, on tiny models; and the battery through evaluations that are
wrong.
"""

from dataclasses import replace
from functools import cache

import pytest
import torch

from in_world import as_held_out
from reader_lm import D as WIDE
from reader_lm import Reader, corpus, labelled_windows_of
from saelab.evals import EVALS
from saelab.evals.concepts import measure as concepts
from saelab.evals.consistency import measure as consistency
from saelab.runs import WorldSource
from saelab.synth.worlds import build_world
from saelab.testing.evaluations import CHECKS, evaluation_checks
from toy_lm import D, ToyLM, held, windows

SMALL_WORLDS = ("s1", "s2", "s3", "s4", "s5")
NAMES = [check.__name__.removeprefix("check_") for check in CHECKS]


@cache
def prepared(name: str):
    """Data of an evaluation, and the width of its activations: of a tiny model, or of the first
    small world that has what it needs.
    """
    for world in SMALL_WORLDS:
        source = WorldSource(world, {}, 64, 64)
        if not EVALS[name].missing(source):
            drawn = build_world(source)
            return EVALS[name].prepare(as_held_out(drawn)), drawn.d_in
    if name in ("concepts", "consistency"):
        module = concepts if name == "concepts" else consistency
        return module.prepare_labelled(*labelled_windows_of(Reader(), corpus())), WIDE
    lm = ToyLM()
    return EVALS[name].prepare(held(lm, windows(lm, n=40))), D


@pytest.mark.parametrize("check", NAMES)
@pytest.mark.parametrize("name", EVALS)
def test_battery(name: str, check: str):
    data, d_in = prepared(name)
    dict(evaluation_checks(EVALS[name], data, d_in=d_in))[check]()


def broken(**change):
    """The core evaluation with another measure or other metrics."""
    data, d_in = prepared("core")
    return dict(evaluation_checks(replace(EVALS["core"], **change), data, d_in=d_in))


def test_the_battery_can_fail():
    measure, metrics = EVALS["core"].measure, EVALS["core"].metrics
    with pytest.raises(AssertionError, match=r"scores or metrics without the other: \['l0'\]"):
        broken(metrics=metrics[1:])["keys"]()

    def twice(dictionary, data):
        result = measure(dictionary, data)
        return replace(result, figures=result.figures * 2)

    with pytest.raises(AssertionError, match="two figures have one key"):
        broken(measure=twice)["json"]()
    drawn = lambda dictionary, data: replace(  # noqa: E731
        measure(dictionary, data), details={"noise": float(torch.rand(()))}
    )
    with pytest.raises(AssertionError, match="drew from the global generator"):
        broken(measure=drawn)["equal"]()

    def careless(dictionary, data):
        result = measure(dictionary, data)
        scores = {key: replace(score, reason="") for key, score in result.scores.items()}
        return replace(result, scores=scores)

    with pytest.raises(AssertionError, match="undefined without a reason"):
        broken(measure=careless)["zero"]()

    def rude(dictionary, data):
        if not len(dictionary.directions):
            raise ValueError("no")
        return measure(dictionary, data)

    with pytest.raises(AssertionError, match="refused without saying why: no"):
        broken(measure=rude)["empty"]()
