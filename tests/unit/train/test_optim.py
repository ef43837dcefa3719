"""The learning rate's course, clipping per owner, and the optimizer's state as tensors."""

import pytest
import torch
from torch import nn

from saelab.runs import Optim, Run, Source, Spec
from saelab.train.optim import (
    build_optimizer,
    first_of_last,
    learning_rate,
    load_optimizer,
    lr_factor,
    optimizer_tensors,
    take_step,
)


def test_lr_factor_warms_up_stays_and_decays():
    optim = Optim(warmup=10, decay=0.3)
    factors = [lr_factor(optim, step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[4] == pytest.approx(0.5)
    assert factors[9:71] == [1.0] * 62
    assert factors[85] == pytest.approx(0.5) and factors[99] == pytest.approx(1 / 30)
    assert all(0 < factor <= 1 for factor in factors)


def test_lr_factor_starts_anew():
    optim = Optim(warmup=10, decay=0.5)
    factors = [lr_factor(optim, step, 100, 0.2) for step in range(100)]
    # as if the rest did not exist
    assert factors[:80] == [lr_factor(optim, step, 80) for step in range(80)]
    assert factors[79] == pytest.approx(1 / 40)
    assert factors[80:] == [lr_factor(optim, step, 20) for step in range(20)]
    assert factors[80] == 0.1 and factors[89] == 1.0 and factors[99] == pytest.approx(1 / 10)
    assert (
        lr_factor(optim, 89, 100, 0.2, 0.25) == 0.25 and lr_factor(optim, 40, 100, 0.2, 0.25) == 1
    )
    assert (first_of_last(100, 0.2), first_of_last(100, 0.0), first_of_last(9, 0.25)) == (
        80,
        100,
        7,
    )


def test_lr_factor_without_warm_up_or_decay():
    assert [lr_factor(Optim(warmup=0, decay=0.0), step, 10) for step in range(10)] == [1.0] * 10


def test_warm_up_and_decay_may_overlap():
    optim = Optim(warmup=100, decay=1.0)
    assert lr_factor(optim, 9, 20) == pytest.approx(0.1) and lr_factor(
        optim, 19, 20
    ) == pytest.approx(1 / 20)


def a_run(**optim) -> Run:
    return Run(Spec("topk"), Source(), Optim(**optim))


@pytest.mark.parametrize(
    ("n_latents", "steps", "expected"),
    [
        (16_384, 60_000, 2e-4),
        (16_384, 10**6, 2e-4),  # long runs are not slowed further
        (4_096, 60_000, 4e-4),
        (4_096, 15_000, 8e-4),
        (16_384, 10, 12 * 2e-4),  # at most 12 times
    ],
)
def test_learning_rate_is_derived_from_width_and_length(n_latents, steps, expected):
    run = Run(Spec("topk", n_latents), Source(tokens=steps * 64, batch=64))
    assert learning_rate(run) == pytest.approx(expected)
    assert learning_rate(Run(run.spec, run.source, Optim(lr=0.5))) == 0.5


class Part(nn.Module):
    def __init__(self, frozen: bool = False):
        super().__init__()
        self.free = nn.Parameter(torch.zeros(3, 2))
        self.other = nn.Parameter(torch.zeros(2), requires_grad=not frozen)


def test_one_group_per_part_that_has_parameters():
    optimizer = build_optimizer(
        [Part(frozen=True), nn.ReLU(), Part()], a_run(beta1=0.5, beta2=0.9, lr=0.3)
    )
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 2]
    assert (
        optimizer.param_groups[0]["betas"] == (0.5, 0.9) and optimizer.param_groups[1]["lr"] == 0.3
    )


def test_gradients_are_clipped_per_group():
    parts = [Part(frozen=True), Part(frozen=True)]
    optimizer = build_optimizer(parts, a_run())
    parts[0].free.grad, parts[1].free.grad = torch.full((3, 2), 100.0), torch.full((3, 2), 0.01)
    take_step(optimizer, 0.1, 1.0)
    assert parts[0].free.grad.norm() == pytest.approx(1.0, rel=1e-4)
    # the neighbour's size does not matter
    assert torch.equal(parts[1].free.grad, torch.full((3, 2), 0.01))
    torch.testing.assert_close(parts[1].free, torch.full((3, 2), -0.1), rtol=1e-4, atol=0)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_a_loaded_optimizer_goes_on_as_if_never_stopped(layout):
    """Also when the parameter is transposed in memory and the tensors come from a file, which has
    no such thing.
    """

    def part():
        part = Part()
        if layout == "columns":
            part.free = nn.Parameter(torch.zeros(2, 3).T)
        return part

    def train(part, optimizer, steps):
        for step in steps:
            g = torch.Generator().manual_seed(step)
            part.free.grad, part.other.grad = (
                torch.randn(3, 2, generator=g),
                torch.randn(2, generator=g),
            )
            take_step(optimizer, 0.1, 1.0)

    whole, stopped, resumed = part(), part(), part()
    first, second, third = (build_optimizer([p], a_run()) for p in (whole, stopped, resumed))
    train(whole, first, range(6))
    train(stopped, second, range(3))
    resumed.load_state_dict({name: t.clone() for name, t in stopped.state_dict().items()})
    tensors = {
        name: t.clone(memory_format=torch.contiguous_format)
        for name, t in optimizer_tensors(second).items()
    }
    assert sorted(tensors) == [
        f"{i}.{key}" for i in range(2) for key in ("exp_avg", "exp_avg_sq", "step")
    ]
    load_optimizer(third, tensors)
    train(resumed, third, range(3, 6))
    assert torch.equal(whole.free, resumed.free) and torch.equal(whole.other, resumed.other)
