"""What every variant must satisfy, as plain functions: a new one, here or elsewhere, is held to the
same.

    for name, check in variant_checks("mine", build=my_build):
        check()  # raises AssertionError, with the numbers

`build` has the signature of `saelab.variants.build`. Needs torch only and takes seconds.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from saelab.runs import Optim, Run, Source, Spec
from saelab.sae.io import load_sae, save_sae
from saelab.sae.module import SAE
from saelab.store import read_tensors, write_tensors
from saelab.terms.base import Need, Objective, Step, Term, Variant
from saelab.testing.fakes import SparseSource
from saelab.train.loop import Build, Training
from saelab.train.member import under
from saelab.types import ActivationSource, Hook, value_at
from saelab.variants import build as build_variant

# The battery --------------------------------------------------------------------------------------

D_IN, N_LATENTS, L0, BATCH = 16, 64, 4.0, 128


@dataclass(frozen=True)
class Subject:
    """The variant under test."""

    name: str
    build: Build
    settings: Mapping[str, float] = field(default_factory=dict)  # that differ from its defaults

    def run(self, steps: int, *, seed: int = 0, l0: float = L0) -> Run:
        """A run of so many steps on `SparseSource`."""
        spec = Spec(self.name, N_LATENTS, l0, self.settings)
        return Run(spec, Source(tokens=steps * BATCH, batch=BATCH), Optim(lr=3e-3, warmup=20), seed)

    def variant(self, *, seed: int = 0) -> Variant:
        """The variant as built, untrained."""
        return self.build(self.run(1).spec, D_IN, seed, Hook(0))

    def training(self, *runs: Run, build: Build | None = None) -> Training:
        """A training of these runs in lock-step."""
        source = SparseSource(d_in=D_IN, batch=BATCH)
        return Training(runs, source, build=build or self.build, meet=_once)

    def trained(self, steps: int) -> SAE:
        """The folded SAE after so many steps."""
        training = self.training(self.run(steps))
        list(training)
        return training.results()[0].sae


# needs of `SparseSource`, by the name that says every number of theirs
_MET: dict[str, Mapping[str, Tensor]] = {}


def _once(need: Need, source: ActivationSource) -> Mapping[str, Tensor]:
    """The statistic, computed by the first check that asks for it."""
    if need.name not in _MET:
        _MET[need.name] = need.of(source)
    return _MET[need.name]


def variant_checks(
    name: str, *, build: Build = build_variant, settings: Mapping[str, float] | None = None
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Checks by name; one raises `AssertionError` when the variant fails it."""
    subject = Subject(name, build, dict(settings or {}))
    for check in CHECKS:
        yield check.__name__.removeprefix("check_"), partial(check, subject)


def check_build(subject: Subject) -> None:
    """The field's shapes, unit decoder rows, finite tensors, the hook it was given."""
    sae = subject.variant().sae
    shapes = [tuple(t.shape) for t in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec)]
    assert shapes == [(D_IN, N_LATENTS), (N_LATENTS, D_IN), (N_LATENTS,), (D_IN,)], shapes
    assert sae.hook == Hook(0), sae.hook
    assert all(torch.isfinite(t).all() for t in sae.state_dict().values())
    _assert_unit_rows(sae)


def check_seeds(subject: Subject) -> None:
    """Equal seeds give equal weights, others do not, and torch's global generator is left alone."""
    before = torch.get_rng_state()
    first, again, other = (subject.variant(seed=seed).sae.state_dict() for seed in (3, 3, 4))
    list(subject.training(subject.run(3)))
    assert torch.equal(before, torch.get_rng_state()), (
        "building or training drew from the global generator"
    )
    _assert_equal(first, again)
    assert not torch.equal(first["W_dec"], other["W_dec"]), "seeds 3 and 4 give the same decoder"


def check_codes(subject: Subject) -> None:
    """Codes are non-negative and of the right shape, in training too, and at inference do not
    depend on the neighbours.
    """
    sae = subject.trained(40)
    x = _fresh(96)
    for z in (sae.encode(x), sae.codes(x, 0.5)[1]):
        assert z.shape == (96, N_LATENTS) and torch.isfinite(z).all() and (z >= 0).all()
    z = sae.encode(x)
    assert (z > 0).any(), "nothing is active"
    assert sae.decode(z).shape == x.shape
    in_windows = sae.encode(x.reshape(6, 16, D_IN)).flatten(0, 1)
    alone = torch.cat([sae.encode(row) for row in x.split(1)])
    for again in (in_windows, alone):
        torch.testing.assert_close(again, z, rtol=1e-5, atol=1e-6)


def check_learns(subject: Subject) -> None:
    """150 steps on sparse features: loss falls, reconstruction improves and beats the mean, the
    gate is content.

    The loss is that of the final weights, over the terms computed at both ends: a weight that rises
    is no failure to learn.
    """
    training = subject.training(subject.run(150))
    records = [record for progress in list(training) for record in progress.records]
    weights = {
        term.name: value_at(term.weight, 1.0) for term in training.members[0].objective.terms
    }
    both = weights.keys() & records[0].losses.keys() & records[-1].losses.keys()
    before, after = (
        sum(weights[name] * record.losses[name] for name in both)
        for record in (records[0], records[-1])
    )
    assert after < before, (before, after)
    first, last = records[0].explained_variance, records[-1].explained_variance
    assert last > first, f"explained variance went from {first:.3f} to {last:.3f}"
    result = training.results()[0]
    assert result.health.healthy, result.health.problems
    assert result.measured.explained_variance > 0.4, result.measured


def check_unit_rows(subject: Subject) -> None:
    """Decoder rows stay unit norm, through every event."""
    training = subject.training(subject.run(40))
    for _ in training:
        _assert_unit_rows(training.members[0].sae)


def check_resume(subject: Subject) -> None:
    """Stopped anywhere (also just before and after an event at .15, .3, .45), saved, read and
    resumed: the same bits.

    Half of all latents start dead, so that resampling has something to do, and to draw.
    """
    run, build = subject.run(40, seed=1), _crippled(subject.build)
    whole = subject.training(run, build=build)
    kept = {progress.step: whole.state() for progress in whole}
    with tempfile.TemporaryDirectory() as folder:
        for stop in (1, 5, 6, 11, 12, 18, 30):
            write_tensors(Path(folder) / "state.safetensors", kept[stop])
            resumed = subject.training(run, build=build)
            resumed.load(read_tensors(Path(folder) / "state.safetensors"))
            assert [p.step for p in resumed] == list(range(stop + 1, 41))
            _assert_equal(kept[40], resumed.state())
            finished, again = (training.results()[0].sae for training in (whole, resumed))
            _assert_equal(finished.state_dict(), again.state_dict())


def check_round_trip(subject: Subject) -> None:
    """Written and read back, an SAE gives the same codes bit for bit."""
    sae, x = subject.trained(40), _fresh(256)
    with tempfile.TemporaryDirectory() as folder:
        save_sae(sae, Path(folder) / "sae", {})
        again = load_sae(Path(folder) / "sae")
    assert (
        again.hook == sae.hook and again.blocks == sae.blocks and type(again.act) is type(sae.act)
    )
    _assert_equal(sae.state_dict(), again.state_dict())
    assert torch.equal(sae.encode(x), again.encode(x)) and torch.equal(sae(x), again(x))


def check_fold(subject: Subject) -> None:
    """Folding a scale changes units and nothing else: folded(x / scale) = unfolded(x) / scale."""
    sae = subject.trained(40).double()
    x = _fresh(256).double()
    for scale in (0.03, 7.0):
        folded = copy.deepcopy(sae)
        folded.fold_scale_(scale)
        z = sae.encode(x) / scale
        assert (z > 0).any(), "nothing is active"
        torch.testing.assert_close(folded.encode(x / scale), z, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(folded(x / scale), sae(x) / scale, rtol=1e-9, atol=1e-12)


def check_weightless_term(subject: Subject) -> None:
    """A term of weight 0 is not computed and changes no bit."""

    def never(step: Step) -> Tensor:
        raise AssertionError(f"a term of weight 0 was computed at {step.progress:.0%}")

    def extended(spec: Spec, d_in: int, seed: int, hook: Hook) -> Variant:
        variant = subject.build(spec, d_in, seed, hook)
        return replace(
            variant, objective=Objective(*variant.objective.terms, Term("nothing", never, 0.0))
        )

    plain = subject.training(subject.run(15))
    more = subject.training(subject.run(15), build=extended)
    list(plain)
    list(more)
    _assert_equal(plain.state(), more.state())


def check_l0(subject: Subject) -> None:
    """The L0 asked for is reached within 5 %, at inference on activations not seen before."""
    asked = (3.0, 6.0)
    training = subject.training(*(subject.run(600, l0=l0) for l0 in asked))
    list(training)
    x = _fresh(16_384)
    for l0, result in zip(asked, training.results(), strict=True):
        reached = float((result.sae.encode(x) > 0).sum()) / len(x)
        assert abs(reached / l0 - 1) < 0.05, f"L0 {reached:.3f}, asked for {l0:g}"


def check_dead_latents(subject: Subject) -> None:
    """Latents that are dead from the start, half of all, come back: AuxK, resampling or another
    remedy is at work.

    Shares are of all latents, for an event may move them. At first: the most before any resampling,
    since a fast remedy may have begun before a tenth of the tokens makes all of the crippled ones
    count as dead.
    """
    training = subject.training(subject.run(300), build=_crippled(subject.build))
    member, dead = training.members[0], 0.0
    for progress in training:
        if progress.step < 45:
            dead = max(dead, float(member.dead.float().mean()))
    assert dead > 0.4, (
        f"only {dead:.0%} of all latents were dead at first; the check needs most of the crippled "
        "half dead"
    )
    still = float(member.dead.float().mean())
    assert still < dead - 0.15, f"{dead:.0%} of all latents were dead, {still:.0%} still are"


def check_lock_step(subject: Subject) -> None:
    """Two runs trained together equal the same two trained alone, bit for bit."""
    runs = [subject.run(40, seed=seed) for seed in (0, 1)]
    group = subject.training(*runs)
    list(group)
    for i, (run, together) in enumerate(zip(runs, group.results(), strict=True)):
        alone = subject.training(run)
        list(alone)
        _assert_equal(under("0.", alone.state()), under(f"{i}.", group.state()))
        _assert_equal(alone.results()[0].sae.state_dict(), together.sae.state_dict())


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_build,
    check_seeds,
    check_codes,
    check_learns,
    check_unit_rows,
    check_resume,
    check_round_trip,
    check_fold,
    check_weightless_term,
    check_l0,
    check_dead_latents,
    check_lock_step,
)


def _crippled(build: Build) -> Build:
    """The first half of the latents hardly see their input: dead from the start."""

    def crippled(spec: Spec, d_in: int, seed: int, hook: Hook) -> Variant:
        variant = build(spec, d_in, seed, hook)
        with torch.no_grad():
            variant.sae.W_enc[:, : N_LATENTS // 2] *= 0.01
        return variant

    return crippled


def _fresh(n: int) -> Tensor:
    """Activations that no training sees."""
    return SparseSource(d_in=D_IN, batch=BATCH).draw(n, torch.Generator().manual_seed(99))


def _assert_unit_rows(sae: SAE) -> None:
    norms = sae.W_dec.detach().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-5)


def _assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """The same names and the same bits."""
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    assert not differ, f"these differ: {', '.join(differ)}"
