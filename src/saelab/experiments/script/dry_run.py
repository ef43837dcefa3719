"""Two training steps on made-up activations of the right shape: finds what is wrong in a script
before a model loads.
"""

from dataclasses import replace

from torch import Tensor, nn

from saelab.lm.hooks import parse_hook
from saelab.lm.weights import load_config
from saelab.runs import Run, Source
from saelab.terms.base import Objective, Step, TermFunction, Variant
from saelab.testing.fakes import SparseSource
from saelab.train import Training
from saelab.train.loop import Build

STEPS, ROWS = 2, 64  # steps, activations per step


def dry_run(run: Run, build: Build) -> None:
    """Train `run`'s variant for two steps on noise, calibrate and encode. Raises whatever the
    variant raises.
    """
    source = run.source
    assert isinstance(source, Source), "a script trains on a language model"
    config = load_config(source.model)
    text = config.get_text_config()
    noise = SparseSource(d_in=text.hidden_size, batch=ROWS, hook=parse_hook(source.hook, config))
    short = replace(run, source=replace(run.source, tokens=STEPS * ROWS, batch=ROWS))
    training = Training([short], noise, build=lambda *asked: _watched(build(*asked)))
    for _ in training:
        pass
    training.results()


def _watched(variant: Variant) -> Variant:
    """The variant with every term that is a plain function checked for what it returns."""
    terms = (
        replace(t, fn=t.fn if isinstance(t.fn, nn.Module) else _scalar(t.name, t.fn))
        for t in variant.objective.terms
    )
    return replace(variant, objective=Objective(*terms))


def _scalar(name: str, fn: TermFunction) -> TermFunction:
    def checked(step: Step) -> Tensor:
        value = fn(step)
        if not isinstance(value, Tensor) or value.ndim:
            what = (
                f"a tensor of shape {tuple(value.shape)}"
                if isinstance(value, Tensor)
                else type(value).__name__
            )
            raise ValueError(
                f"the term {name!r} returned {what}; a term returns a scalar tensor: take its "
                ".mean() or .sum()"
            )
        return value

    return checked
