"""How a failure ends: its exit code, its traceback, its words; and what a dry run warns of."""

import errno
from typing import Any

import pytest
import torch
from torch import nn

from saelab.experiments.failure import exit_code, explain, explained
from saelab.experiments.script.bench import seeded
from saelab.experiments.script.dry_run import dry_run
from saelab.runs import Run, Source, Spec
from saelab.sae.module import SAE
from saelab.train import UnhealthyRun


def caught(action):
    with pytest.raises(BaseException) as raised:
        action()
    return raised.value


def subclass():
    class Mine(SAE):
        pass

    return Mine()


def python():
    wrong: Any = 3
    return wrong[0]


def stop():
    raise KeyboardInterrupt


def unhealthy():
    raise UnhealthyRun("the loss became nan")


@pytest.mark.parametrize(
    ("action", "code", "alone"),
    [
        (lambda: torch.load("nowhere"), 2, True),
        (lambda: int("few"), 2, True),
        (subclass, 2, True),  # a TypeError that saelab raises
        (python, 1, False),  # one of Python
        (lambda: torch.ones(2) @ torch.ones(3), 1, False),
        (unhealthy, 1, True),
        (stop, 130, False),
    ],
)
def test_exit_codes(action, code, alone):
    error = caught(action)
    assert exit_code(error, in_script=False) == code and explained(error) == alone
    in_script = {1: 1 if alone else 2}.get(code, code)  # the user's own crash is the user's to mend
    assert exit_code(error, in_script=True) == in_script


def test_a_refused_subclass_is_told_what_to_write():
    assert "Write `class Mine(nn.Module)` instead" in explain(caught(subclass))


def test_errors_say_what_to_do():
    full = OSError(errno.ENOSPC, "No space left on device", "runs/x")
    assert "the disk is full while writing runs/x" in explain(full)
    assert "not enough disk space for runs/x: it needs 5 MB" in explain(
        OSError(errno.ENOSPC, "it needs 5 MB", "runs/x")
    )
    assert (
        explain(PermissionError(errno.EACCES, "Permission denied", "runs/x"))
        == "runs/x: Permission denied"
    )
    assert explain(ValueError("l0 is 0")) == "l0 is 0"


class Gated(nn.Module):
    """`idle` is used by nothing, `still` is no parameter to train."""

    def __init__(self, d_in):
        super().__init__()
        self.W = nn.Parameter(torch.rand(d_in, 8))
        self.idle = nn.Parameter(torch.ones(8))
        self.still = nn.Parameter(torch.ones(8), requires_grad=False)

    def encode(self, x):
        return torch.relu(x @ self.W) * self.still

    def decode(self, z):
        return z @ self.W.T


class Used(Gated):
    def decode(self, z):
        return (z * self.idle) @ self.W.T


def test_the_dry_run_names_a_parameter_without_a_gradient():
    run = Run(Spec("mine", 8, 4), Source(hook="layers.1"))
    (warning,) = dry_run(run, seeded(Gated, ""))
    assert warning.startswith(
        "Gated.idle receives no gradient, so it stays as it starts; use it in"
    )
    assert dry_run(run, seeded(Used, "")) == []
