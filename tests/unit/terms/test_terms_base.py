"""The objective's bookkeeping, the controller of the L0, schedules."""

import math

import pytest
import torch
from torch import nn

from saelab.sae.activations import ReLU
from saelab.sae.module import SAE
from saelab.terms.base import Objective, Steered, Step, Term
from saelab.terms.schedules import linear
from saelab.types import Tokens

N, D, L = 64, 4, 40


def step_with(l0: float, progress: float = 1.0, value: float = 1.0) -> Step:
    """A step whose codes have this mean L0, all active ones equal to `value`."""
    z = torch.zeros(N * L)
    z[: round(l0 * N)] = value
    z = z.reshape(N, L)
    x = torch.zeros(N, D)
    return Step(
        SAE(D, L, ReLU()),
        {"main": Tokens(x)},
        x,
        z,
        z,
        x,
        torch.zeros(L, dtype=torch.bool),
        progress,
        torch.Generator(),
    )


def steer(steered: Steered, step: Step) -> None:
    """Let a coefficient move after a step."""
    steered(step.z.sum(), step)


class Half(nn.Module):
    """A term that trains along."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, step):
        return self.weight * step.z.sum()


def test_objective_adds_weighted_terms_and_reports_them_unweighted():
    half = Half()
    objective = Objective(
        Term("sum", lambda s: s.z.sum(), 2.0),
        Term("half", half, linear(0, 1)),
        Term("off", half, 0.0),
    )
    total, values = objective(step_with(1, progress=0.25))
    assert total.item() == pytest.approx(2 * N + 0.25 * 0.5 * N)
    assert {name: value.item() for name, value in values.items()} == {"sum": N, "half": N / 2}
    assert set(objective.state_dict()) == {"parts.0.weight", "parts.1.weight"}
    total.backward()
    assert half.weight.grad.item() == pytest.approx(0.25 * N)


def test_any_name_will_do_for_a_term_that_trains_along():
    objective = Objective(*(Term(name, Half()) for name in ("half", "type", "a.b", "")))
    assert (
        list(objective(step_with(1))[1]) == ["half", "type", "a.b", ""]
        and len(list(objective.parameters())) == 4
    )


def test_a_schedule_that_is_zero_is_not_computed():
    def never(step):
        raise AssertionError("computed")

    objective = Objective(Term("late", never, linear(0, 1, since=0.5)))
    assert objective(step_with(1, progress=0.5))[0].item() == 0
    with pytest.raises(AssertionError):
        objective(step_with(1, progress=0.6))


def test_terms_need_different_names():
    with pytest.raises(ValueError, match="terms need different names, given a, b, a"):
        Objective(*(Term(name, lambda s: s.z.sum()) for name in "aba"))


def test_coefficient_is_that_of_the_steered_term():
    term = Term("sparsity", lambda s: s.z.sum(), steered=Steered(4, initial=0.05))
    assert Objective(term).coefficient == pytest.approx(0.05)
    assert set(Objective(term).state_dict()) == {"parts.0.log_coefficient", "parts.0.last"}
    assert Objective(Term("half", Half())).coefficient is None


def test_steered_is_the_coefficient_times_the_penalty_of_that_step():
    steered = Steered(4, initial=0.05)
    term = Term("sparsity", lambda s: s.z.sum(), steered=steered)
    assert term.value(step_with(4))[0].item() == pytest.approx(0.05 * 4 * N)
    assert steered.log_coefficient.requires_grad is False


@pytest.mark.parametrize(("l0", "sign"), [(8, 1), (2, -1), (4, 0), (0, -1), (40, 1)])
def test_steered_moves_towards_the_target(l0, sign):
    steered = Steered(4, initial=0.05)
    steer(steered, step_with(l0))
    moved = math.log(steered.coefficient.item() / 0.05)
    assert (abs(moved) < 1e-9) if sign == 0 else (moved * sign > 0.05)
    assert abs(moved) <= 0.6 + 1e-9  # (1 + 5) * gain * an error of at most 1


def test_steered_target_falls_from_start_times_l0_during_the_warm_up():
    for progress, target in ((0.0, 16.0), (0.25, 8.0), (0.5, 4.0), (1.0, 4.0)):
        steered = Steered(4, initial=0.05, warmup=0.5, start=4.0)
        steer(steered, step_with(target, progress))
        assert steered.coefficient.item() == pytest.approx(0.05, rel=1e-6), progress
    steered = Steered(4, initial=0.05, warmup=0.0, start=4.0)
    steer(steered, step_with(4, 0.0))
    assert steered.coefficient.item() == pytest.approx(0.05)


@pytest.mark.parametrize("initial", [0.001, 0.05, 5.0])
def test_steered_hits_the_target_on_a_toy_plant(initial):
    """The plant: L0 = 10 / sqrt(coefficient), answering with a lag, as an SAE does."""
    steered, l0 = Steered(8, initial=initial, warmup=0.3, start=3.0), 30.0
    for i in range(600):
        steer(steered, step_with(min(l0, L), i / 600))
        l0 += 0.1 * (10 / math.sqrt(steered.coefficient.item()) - l0)
    assert l0 == pytest.approx(8, rel=0.01)
    assert steered.coefficient.item() == pytest.approx((10 / 8) ** 2, rel=0.05)


def test_steered_resumes_from_its_state():
    one, other = (Steered(8, initial=initial) for initial in (0.05, 3.0))
    steer(one, step_with(20))
    other.load_state_dict(one.state_dict())
    steer(one, step_with(12))
    steer(other, step_with(12))
    assert one.coefficient.item() == other.coefficient.item() and one.last.item() == pytest.approx(
        math.log(12 / 8)
    )


def test_linear():
    ramp = linear(3.0, 1.0, since=0.2, until=0.6)
    assert [ramp(p) for p in (0, 0.2, 0.6, 1)] == [3, 3, 1, 1] and ramp(0.4) == pytest.approx(2)
    assert linear(0.0, 2.0)(0.25) == pytest.approx(0.5)
    assert linear(5.0, 1.0, until=0.0)(0.0) == 1  # no ramp at all
