"""Latents in the order of how often they fire, and what moves along when they are sorted."""

import copy

import pytest
import torch

from saelab.sae.activations import BatchTopK, Gated, TopK
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE
from saelab.terms.base import Step
from saelab.terms.events import reorder
from saelab.terms.frequency import MEMORY, ByFrequency
from saelab.terms.reconstruct import mse
from saelab.types import Tokens

N, D, L = 64, 6, 10
ORDER = torch.tensor([3, 0, 9, 1, 2, 8, 4, 7, 5, 6])


def seen(sae, x) -> Step:
    pre, z = sae.codes(x, 0.5)
    dead = torch.arange(L) % 3 == 0
    return Step(sae, {"main": Tokens(x)}, x, pre, z, sae.decode(z), dead, 0.5, torch.Generator())


def trained(act, steps=3) -> tuple[SAE, torch.optim.Adam, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    sae, x = SAE(D, L, act, generator=g), torch.randn(N, D, generator=g)
    optimizer = torch.optim.Adam(
        [p for p in sae.parameters() if p.requires_grad], lr=1e-2, fused=True
    )
    train(sae, optimizer, x, steps)
    return sae, optimizer, x


def train(sae, optimizer, x, steps) -> None:
    for _ in range(steps):
        ((x - sae(x)).square().sum() + (sae.pre(x) ** 2).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(
    "act", [lambda: TopK(3), lambda: JumpReLU(L, threshold=0.1), lambda: Gated(L)]
)
def test_an_order_permutes_the_codes_and_changes_nothing_else(act):
    sae, optimizer, x = trained(act())
    z, x_hat = sae.encode(x), sae(x)
    layout = sae.W_enc.stride()
    reorder(sae, optimizer, ORDER)
    torch.testing.assert_close(sae.encode(x), z[:, ORDER])
    torch.testing.assert_close(sae(x), x_hat)
    assert sae.W_enc.stride() == layout and optimizer.state[sae.W_enc]["exp_avg"].stride() == layout


@pytest.mark.parametrize(
    "act", [lambda: TopK(3), lambda: JumpReLU(L, threshold=0.1), lambda: Gated(L)]
)
def test_training_goes_on_as_if_nothing_had_happened(act):
    """Only with every moment of the optimizer moved along are the steps after it the same."""
    sae, optimizer, x = trained(act())
    reorder(sae, optimizer, ORDER)
    train(sae, optimizer, x, 5)
    other, plain, _ = trained(act(), steps=8)
    reorder(other, plain, ORDER)
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(
            parameter, other.get_parameter(name), rtol=1e-4, atol=1e-5, msg=name
        )


def test_sorting_puts_what_fires_most_first():
    sae, optimizer, x = trained(BatchTopK(2.5))
    term = ByFrequency(mse, L)
    before = copy.deepcopy(sae)
    step = seen(sae, x)
    assert torch.equal(term(step), mse(step))
    rates = (step.z > 0).float().mean(0)
    torch.testing.assert_close(term.rate, MEMORY * rates)
    order = term.sort(sae, optimizer, step)
    assert sorted(order.tolist()) == list(range(L)) and order.tolist() != list(range(L))
    assert torch.equal(term.rate, term.rate.sort(descending=True).values)
    torch.testing.assert_close(term.rate, MEMORY * rates[order])
    assert torch.equal(sae.W_dec, before.W_dec[order]) and torch.equal(
        sae.W_enc, before.W_enc[:, order]
    )
    assert torch.equal(term.sort(sae, optimizer, step), torch.arange(L))  # sorted already


def test_a_step_follows_the_order():
    sae, _, x = trained(TopK(3))
    step = seen(sae, x)
    again = step.reordered(ORDER)
    assert torch.equal(again.z, step.z[:, ORDER]) and torch.equal(again.pre, step.pre[:, ORDER])
    assert torch.equal(again.dead, step.dead[ORDER]) and again.x_hat is step.x_hat
