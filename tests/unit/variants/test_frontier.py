"""The frontier recipe: levels by width, each part off is the base bit for bit, detached and tilted
losses by hand.
"""

import math

import pytest
import torch

from saelab.experiments.tables.table import WorldTable, plan_of
from saelab.runs import Optim, Run, Source, Spec
from saelab.sae.activations import BatchTopK
from saelab.sae.module import SAE
from saelab.terms.base import Step
from saelab.terms.reconstruct import mse, prefix_mse, tilted_mean
from saelab.testing.variants import BATCH, SparseSource, variant_checks
from saelab.train import Training
from saelab.types import Tokens
from saelab.variants import build, settings_of
from saelab.variants.frontier import level_widths

OFF = {
    "depth": 1,
    "detach": 0,
    "inner_weight": 1,
    "sorts": 0,
    "k_start": 1,
    "refine": 0,
    "tilt": 0,
    "leave_one_out": 0,
    "resamples": 0,
}


@pytest.mark.parametrize(
    ("n", "widths"),
    [
        (4, (4,)),
        (15, (15,)),
        (16, (8, 16)),
        (24, (12, 24)),
        (48, (12, 24, 48)),
        (64, (8, 16, 32, 64)),
        (80, (10, 20, 40, 80)),
        (96, (12, 24, 48, 96)),
        (130, (16, 32, 65, 130)),
        (512, (16, 64, 128, 256, 512)),
        (2_048, (16, 64, 256, 512, 1_024, 2_048)),
        (4_096, (32, 128, 512, 1_024, 2_048, 4_096)),
    ],
)
def test_level_widths(n, widths):
    assert level_widths(n) == widths
    for depth in range(1, 7):
        assert level_widths(n, depth) == widths[-depth:]
    blocks = build(Spec("frontier", n, 2), 8, 0).sae.blocks
    assert [block.stop for block in blocks.values()] == list(widths)
    assert [j for block in blocks.values() for j in block] == list(range(n))


# Off is the base ----------------------------------------------------------------------------------


def after(variant, settings, steps=60) -> tuple[dict, dict]:
    """The whole state of a training and the finished SAE."""
    run = Run(
        Spec(variant, 64, 4, settings),
        Source(tokens=steps * BATCH, batch=BATCH),
        Optim(lr=3e-3, warmup=20),
    )
    training = Training([run], SparseSource())
    list(training)
    return training.state(), training.results()[0].sae.state_dict()


@pytest.mark.parametrize(
    ("settings", "base", "base_settings"),
    [
        ({}, "batch_topk", {}),
        ({"depth": 6}, "matryoshka", {"levels": 4}),
        ({"depth": 2}, "matryoshka", {"inner": 32}),
        ({"k_start": 3, "k_until": 0.4}, "batch_topk", {"anneal": 3}),
        ({"aux": 0}, "batch_topk", {"aux": 0}),
        # without levels neither has anything to do
        ({"inner_weight": 0.5, "detach": 1}, "batch_topk", {}),
    ],
)
def test_switched_off_it_is_the_base_bit_for_bit(settings, base, base_settings):
    for mine, theirs in zip(
        after("frontier", OFF | settings), after(base, base_settings), strict=True
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_world_does_not_overrule_the_recipe():
    """Worlds set `anneal`, `levels` and `inner` of variants that have them; the recipe's numbers
    are its own.
    """
    assert not {"anneal", "levels", "inner"} & settings_of("frontier").keys()
    assert [run.spec.settings for run in plan_of(WorldTable("s2", ("frontier",), (0,))).runs] == [
        {}
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"leave_one_out": 0.33},
        {"leave_one_out": 0.33, "refine": 0, "sorts": 0},
        {"detach": 0, "sorts": 60, "aux": 0},
    ],
)
@pytest.mark.parametrize(
    "check", ["codes", "unit_rows", "resume", "round_trip", "fold", "l0", "lock_step"]
)
def test_other_numbers_pass_the_battery_too(check, settings):
    dict(variant_checks("frontier", settings=settings))[check]()


def test_trained_at_the_l0_that_leaving_one_out_reduces_to_the_one_asked_for():
    act = build(Spec("frontier", 64, 4, {"leave_one_out": 0.2, "k_start": 2}), 8, 0).sae.act
    assert isinstance(act, BatchTopK)
    assert callable(act.k) and [act.k(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([10, 7.5, 5])
    narrow = build(Spec("frontier", 10, 4, {"leave_one_out": 0.8}), 8, 0).sae.act
    assert narrow.config() == {"k": 9}  # of 10 latents no more than nine tenths


def test_counters_move_along_with_their_latents():
    """Every sort must keep each latent's count of silent activations: they only grow or start anew,
    whoever moves.
    """
    run = Run(
        Spec("frontier", 64, 4, {"resamples": 0, "sorts": 30}),
        Source(tokens=31 * BATCH, batch=BATCH),
        Optim(lr=3e-3),
    )
    training = Training([run], SparseSource())
    member, moved = training.members[0], 0
    before = member.sae.W_dec.detach().clone(), member.quiet.clone()
    for _ in training:
        rows = member.sae.W_dec.detach()
        order = (rows @ before[0].T).argmax(1)  # who a latent was: one step turns it little
        if len(order.unique()) == 64:
            silent = member.quiet > 0
            assert torch.equal(member.quiet[silent], before[1][order][silent] + BATCH)
            moved += int((order != torch.arange(64)).sum())
        before = rows.clone(), member.quiet.clone()
    assert moved > 50


# The loss by hand ---------------------------------------------------------------------------------


def a_step(dtype=torch.float64) -> Step:
    g = torch.Generator().manual_seed(0)
    sae, x = (
        SAE(5, 12, BatchTopK(3), generator=g).to(dtype),
        torch.randn(40, 5, generator=g).to(dtype),
    )
    with torch.no_grad():
        sae.b_dec.add_(0.3)
    pre, z = sae.codes(x, 0.5)
    return Step(
        sae,
        {"main": Tokens(x)},
        x,
        pre,
        z,
        sae.decode(z),
        torch.zeros(12, dtype=torch.bool),
        0.5,
        torch.Generator(),
    )


def gradients(step: Step, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names = ("W_enc", "W_dec", "b_enc", "b_dec")
    found = torch.autograd.grad(
        loss, [step.sae.get_parameter(name) for name in names], retain_graph=True
    )
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("inner", [0.0, 0.5, 1.0])
def test_levels_are_weighted(inner):
    step, sae = a_step(), a_step().sae
    errors = []
    for width in (3, 7, 12):
        z = step.z.detach().clone()
        z[:, width:] = 0
        errors.append((step.x - sae.decode(z)).square().sum(1).mean().item())
    expected = (inner * errors[0] + inner * errors[1] + errors[2]) / (2 * inner + 1)
    for detach in (0, 1):  # the same value, other gradients
        value = prefix_mse((3, 7, 12), inner_weight=inner, detach=detach)(step)
        assert value.item() == pytest.approx(expected, rel=1e-12)
    if inner == 0:
        assert value.item() == pytest.approx(mse(step).item(), rel=1e-12)


def test_a_detached_level_trains_its_own_latents_and_the_bias():
    step = a_step()
    whole = gradients(step, 2 * prefix_mse((4, 12), detach=1)(step))
    inner = gradients(step, prefix_mse((4,))(step))
    joint = gradients(step, mse(step))
    for name, axis in (("W_enc", 1), ("W_dec", 0), ("b_enc", 0)):
        first, rest = (
            t.split([4, 8], dim=axis)[i] for t, i in ((whole[name], 0), (whole[name], 1))
        )
        torch.testing.assert_close(first, inner[name].split([4, 8], dim=axis)[0], msg=name)
        torch.testing.assert_close(rest, joint[name].split([4, 8], dim=axis)[1], msg=name)
        assert joint[name].split([4, 8], dim=axis)[0].abs().sum() > 0
    # the part of b_dec's gradient that comes through the codes is a level's own too, so it is only
    # checked to be there
    assert whole["b_dec"].abs().sum() > 0


def test_tilted_mean_is_the_formula_between_mean_and_maximum():
    errors = torch.tensor([0.1, 0.4, 0.2, 1.3], dtype=torch.float64)
    for tilt in (1e-6, 2e-3, 1.6, 8.0):
        expected = math.log(sum(math.exp(tilt * e) for e in errors.tolist()) / 4) / tilt
        assert tilted_mean(errors, tilt).item() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(tilted_mean(errors, 0), errors.mean())
    assert tilted_mean(errors, 1e-9).item() == pytest.approx(0.5, rel=1e-8)
    assert tilted_mean(errors, 1e6).item() == pytest.approx(1.3, rel=1e-4)  # and nothing overflows
    # nor loses its digits
    assert tilted_mean(errors.float(), 1e-6).item() == pytest.approx(0.5, rel=1e-5)


def test_the_tilt_weighs_badly_reconstructed_positions():
    errors = torch.tensor([0.1, 0.4, 0.2, 1.3], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(tilted_mean(errors, 1.6), errors)
    torch.testing.assert_close(grad, (1.6 * errors.detach()).softmax(0))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"depth": 0}, "depth is 0; it must be a whole number, at least 1: levels at most"),
        ({"detach": 0.5}, r"detach is 0.5; it must be 1 \(on\) or 0 \(off\)"),
        ({"inner_weight": -1}, "inner_weight is -1; it must be at least 0"),
        ({"sorts": -1}, "sorts is -1"),
        ({"k_start": 0.5}, "k_start is 0.5; it must be at least 1"),
        ({"refine": 2}, "refine is 2; it must be from 0 to 1: size of the LISTA step"),
        ({"tilt": -0.1}, "tilt is -0.1"),
        ({"tilt": float("nan")}, "tilt is nan"),
        ({"leave_one_out": 1}, "leave_one_out is 1; it must be from 0 to 0.9: share of the active"),
        ({"resamples": 7}, "resamples is 7; .* from 0 to 6: .* one after every 15 % of training"),
    ],
)
def test_what_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        build(Spec("frontier", 64, 4, settings), 8, 0)
