"""Two training steps on made-up activations of the right shape: finds what is wrong in a script
before a model loads.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from saelab.lm.hooks import parse_hook
from saelab.lm.weights import load_config
from saelab.runs import Run, Source
from saelab.sae.io import load_sae, save_sae
from saelab.sae.module import SAE
from saelab.sae.own import CURE, OwnSAE
from saelab.store import CorruptFile
from saelab.terms.base import LossFunction, Objective, Step, Variant
from saelab.testing.fakes import SparseSource
from saelab.train import Training, UnhealthyRun
from saelab.train.loop import Build

STEPS, ROWS = 2, 64  # steps, activations per step


def dry_run(run: Run, build: Build) -> list[str]:
    """Train `run`'s variant for two steps on noise, save it, load it, and code two windows with
    both. Returns what to warn of; raises whatever the variant raises.
    """
    source = run.source
    assert isinstance(source, Source), "a script trains on a language model"
    config = load_config(source.model)
    text = config.get_text_config()
    noise = SparseSource(d_in=text.hidden_size, batch=ROWS, hook=parse_hook(source.hook, config))
    short = replace(run, source=replace(run.source, tokens=STEPS * ROWS, batch=ROWS))
    idle: set[str] = set()
    training = Training([short], noise, build=lambda *asked: _watched(build(*asked), idle))
    try:
        for _ in training:
            pass
    except UnhealthyRun as error:
        raise UnhealthyRun(f"in the dry run, on {ROWS} made-up activations: {error}") from error
    (trained,) = training.results()
    x = noise.numbered(0).view(2, ROWS // 2, -1)  # two windows
    _check_saved(trained.sae, x, lambda: build(run.spec, noise.d_in, run.seed, noise.hook).sae)
    return [
        f"{trained.sae.name}.{name} receives no gradient, so it stays as it starts; use it in "
        "encode, decode or loss, or make it a buffer (register_buffer)"
        for name in sorted(idle)
    ]


def _check_saved(sae: SAE, x: Tensor, fresh: Callable[[], SAE]) -> None:
    """What is saved and loaded again codes `x [B, T, D]` as before, and has the directions that
    evaluations ask for.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sae"
        save_sae(sae, folder, {})
        own = fresh() if isinstance(sae, OwnSAE) else None
        try:
            again = load_sae(folder, module=own if isinstance(own, OwnSAE) else None)
        except CorruptFile as error:
            raise ValueError(
                f"the SAE cannot be read back once it is saved ({error}); a parameter that is put "
                f"on a ready-made SAE is not part of it. {CURE}"
            ) from error
    z = sae.encode(x)
    for what, before, after in (
        ("codes", z, again.encode(x)),
        ("a reconstruction", sae.decode(z), again.decode(z)),
        ("directions", sae.directions, again.directions),
    ):
        # a tensor from a file may lie in memory where products round otherwise
        if not torch.allclose(before, after, rtol=1e-4, atol=1e-5):
            raise ValueError(
                f"saved and loaded again, the SAE has {what} of another value: something it "
                "uses is not in its state_dict; make it an nn.Parameter or a buffer "
                "(register_buffer)"
            )


def _watched(variant: Variant, idle: set[str]) -> Variant:
    """The variant with every term that is a plain function checked for what it returns; `idle`
    keeps the parameters of a module of its own that have received no gradient.
    """
    if isinstance(variant.sae, OwnSAE):
        for name, parameter in variant.sae.module.named_parameters():
            if parameter.requires_grad:
                idle.add(name)
                parameter.register_hook(lambda _, name=name: idle.discard(name))
    terms = (
        replace(t, fn=t.fn if isinstance(t.fn, nn.Module) else _scalar(t.name, t.fn))
        for t in variant.objective.terms
    )
    return replace(variant, objective=Objective(*terms))


def _scalar(name: str, fn: LossFunction) -> LossFunction:
    def checked(step: Step) -> Tensor | tuple[Tensor, Mapping[str, Tensor]]:
        result = fn(step)
        value = result[0] if isinstance(result, tuple) and result else result
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
        return result

    return checked
