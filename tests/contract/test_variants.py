"""Every variant through one battery, what the table of variants refuses, and that the battery can
fail.
"""

from dataclasses import replace
from functools import cache
from itertools import islice

import pytest
import torch

from saelab.runs import Spec
from saelab.sae.activations import Activation, TopK
from saelab.terms.base import Event, Variant
from saelab.testing import variants as checks
from saelab.testing.variants import BATCH, CHECKS, N_LATENTS, SparseSource, Subject, variant_checks
from saelab.types import Cursor, Hook, Tokens, Windows
from saelab.variants import VARIANTS, build, check_spec, settings_of

NAMES = [name for name, _ in variant_checks("topk")]
CHANGED = {  # a value that differs from the default and must change what is trained
    "coefficient": 0.05,
    "warmup": 0.1,
    "p_end": 0.8,
    "width": 0.2,
    "aux": 0.0,
    "anneal": 3.0,
    "levels": 3.0,
    "inner": 5.0,
    "excess": 1.5,
    "depth": 2.0,
    "detach": 0.0,
    "inner_weight": 0.9,
    "sorts": 0.0,
    "k_start": 1.0,
    "k_until": 0.5,
    "refine": 0.1,
    "tilt": 0.0,
    "leave_one_out": 0.33,
    "resamples": 0.0,
    "weight": 3.0,
    "ramp": 0.0,
    "clusters": 3.0,
    "rotate": 1.0,
    "isotropic": 1.0,
    "shuffle": 1.0,
    "per_token": 1.0,
    "data_labels": 1.0,
    "rows": 500.0,
    "rank": 4.0,
    "finetune": 0.5,
    "finetune_weight": 3.0,
    "share": 0.5,
    "restart": 0.6,
    "kl_share": 0.5,
    "price": 0.5,
    "price_updates": 9.0,
    "price_latents": 8.0,
    "price_zero": 0.0,
    "price_mean": 0.0,
    "price_resample": 1.0,
    "price_noise": 0.0,
    "price_steer": 1.0,
    "block": 0.25,
    "length": 3.0,
    "every": 2.0,
    "reach": 5.0,
    "untied": 0.0,
    "permute": 1.0,
    "window": 4.0,
    "variance": 1.0,
    "relative": 1.0,
    "product": 1.0,
    "pre": 1.0,
    "temperature": 0.5,
}
FIXED = {("temporal_on_frontier", "sorts")}  # settings of a base that a row cannot have otherwise
FEW_ROWS = {"rows": 2_000.0}  # a metric in a moment
BESIDE = {  # without which the setting means nothing
    "shuffle": {"clusters": 2.0},
    **{name: {"finetune": 0.5} for name in ("finetune_weight", "restart", "kl_share")},
    **{name: {"price": 0.5} for name in CHANGED if name.startswith("price_")},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_battery(variant, name):
    dict(variant_checks(variant))[name]()


def test_battery_runs_every_check():
    assert [f"check_{name}" for name in NAMES] == [check.__name__ for check in CHECKS]
    assert {name for name in vars(checks) if name.startswith("check_")} == {
        check.__name__ for check in CHECKS
    }


@cache
def encoder_after(variant: str, settings: tuple[tuple[str, float], ...]) -> torch.Tensor:
    """The encoder after 40 steps (the last twentieth has a step in which its KL counts), with dead
    latents, for what cures them.
    """
    return Subject(variant, checks._crippled(build), dict(settings)).trained(40).W_enc


@pytest.mark.parametrize(
    ("variant", "setting"),
    [(v, s) for v in VARIANTS for s in settings_of(v) if (v, s) not in FIXED],
)
def test_every_setting_changes_the_run(variant, setting):
    beside = {
        name: value
        for name, value in (FEW_ROWS | BESIDE.get(setting, {})).items()
        if name in settings_of(variant)
    }
    changed = beside | {setting: CHANGED[setting]}
    assert not torch.equal(
        encoder_after(variant, tuple(beside.items())),
        encoder_after(variant, tuple(changed.items())),
    ), f"{variant}: {setting} changes nothing"


def test_the_source_depends_on_the_cursor_alone():
    source = SparseSource()
    stream = source.batches(Tokens, Cursor())
    (first, following), (second, _) = ((views.main, after) for views, after in islice(stream, 2))
    again = next(SparseSource().batches(Tokens, following))[0].main
    assert torch.equal(second.flat, again.flat) and not torch.equal(first.flat, second.flat)
    windows = next(source.batches(Windows, Cursor()))[0].main
    assert torch.equal(windows.flat, first.flat) and windows.x.shape == (BATCH // 16, 16, 16)
    scaled = first.flat * source.stats.scale
    assert 0.8 < scaled.square().sum(1).mean() < 1.2  # mean squared norm 1


# The battery can fail -----------------------------------------------------------------------------


class Signed(Activation):
    """Codes of either sign."""

    name = "signed"

    def forward(self, pre):
        return torch.where(pre.abs() > 0.2, pre, 0.0)


class Neighbourly(TopK):
    """Codes that depend on the rest of the batch."""

    def forward(self, pre):
        return super().forward(pre) * (pre >= 0.5 * pre.max())


class Unscaled(TopK):
    """A threshold that a change of units forgets."""

    def forward(self, pre):
        return super().forward(pre) * (pre > 0.3)


def with_act(act):
    def build_it(spec, d_in, seed, hook) -> Variant:
        variant = build(spec, d_in, seed, hook)
        variant.sae.act = act()
        return variant

    return build_it


def with_events(*events):
    return lambda spec, d_in, seed, hook: replace(build(spec, d_in, seed, hook), events=events)


def unseeded(spec, d_in, seed, hook) -> Variant:
    variant = build(spec, d_in, seed, hook)
    with torch.no_grad():
        variant.sae.b_enc += 0.001 * torch.rand(N_LATENTS)
    return variant


def grow(sae, optimizer, step):
    with torch.no_grad():
        sae.W_dec *= 1.01


class Counting:
    """An event with a memory that no checkpoint holds."""

    def __init__(self):
        self.calls = 0

    def __call__(self, sae, optimizer, step):
        self.calls += 1
        with torch.no_grad():
            sae.b_enc += 0.001 * self.calls


@pytest.mark.parametrize(
    ("check", "variant", "sabotage", "settings", "message"),
    [
        ("codes", "topk", with_act(Signed), {}, None),
        ("codes", "topk", with_act(lambda: Neighbourly(4)), {}, None),
        ("fold", "topk", with_act(lambda: Unscaled(4)), {}, None),
        ("l0", "topk", with_act(lambda: TopK(5)), {}, "asked for 3"),
        ("seeds", "topk", unseeded, {}, "global generator|differ"),
        ("unit_rows", "topk", with_events(Event((0.2,), grow)), {}, None),
        ("dead_latents", "topk", build, {"aux": 0.0}, "still are"),
        ("dead_latents", "batch_topk", build, {"aux": 0.0}, "still are"),
        ("dead_latents", "standard", with_events(), {"coefficient": 0.2}, "dead"),
        ("learns", "standard", build, {"coefficient": 50.0}, None),
        (
            "resume",
            "topk",
            lambda *a: replace(build(*a), events=(Event((0.1, 0.5), Counting()),)),
            {},
            "these differ: .*b_enc",
        ),
    ],
)
def test_a_broken_variant_is_caught(check, variant, sabotage, settings, message):
    with pytest.raises(AssertionError, match=message):
        dict(variant_checks(variant, build=sabotage, settings=settings))[check]()


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            Spec("matroshka"),
            ("unknown variant 'matroshka'", "did you mean 'matryoshka'?", "known: standard"),
        ),
        (Spec("nothing like it"), ("known: standard, standard_trimmed, p_anneal, gated",)),
        (
            Spec("jump_relu", settings={"widht": 0.1}),
            ("jump_relu has no setting 'widht'", "did you mean 'width'?", "coefficient"),
        ),
        (Spec("topk", settings={"l0": 3}), ("no setting 'l0'", "aux, anneal")),
        (Spec("topk", n_latents=32, l0=32), ("l0 is 32", "below the number of latents, 32")),
        (Spec("topk", n_latents=32, l0=1e9), ("l0 is 1e+09",)),
        (Spec("topk", l0=0), ("l0 is 0", "above 0")),
        (Spec("topk", l0=float("nan")), ("l0 is nan",)),
        (Spec("topk", n_latents=0), ("n_latents is 0", "at least 1")),
    ],
)
def test_specs_that_cannot_be_built(spec, words):
    for refuse in (lambda: check_spec(spec), lambda: build(spec, 16, 0)):
        with pytest.raises(ValueError) as error:
            refuse()
        assert all(word in str(error.value) for word in words), str(error.value)


def test_widths_that_cannot_be_built():
    with pytest.raises(ValueError, match="width 0; the width must be at least 1"):
        build(Spec("topk", 64, 4), 0, 0)
    with pytest.raises(ValueError, match="levels is 0; it must be a whole number, at least 1"):
        build(Spec("matryoshka", 64, 4, {"levels": 0}), 16, 0)


def test_settings_are_the_numbers_of_the_signature():
    assert settings_of("jump_relu") == {"coefficient": 0.0, "warmup": 0.33, "width": 0.06}
    assert all(
        isinstance(value, int | float) for v in VARIANTS for value in settings_of(v).values()
    )


def test_a_small_dictionary_still_has_levels():
    blocks = build(Spec("matryoshka", 8, 2), 4, 0, Hook(0)).sae.blocks
    assert [list(r) for r in blocks.values()] == [[0], [], [1], [2, 3], [4, 5, 6, 7]]
