"""Adam as the trainer uses it: a group per owner, warm-up, linear decay, gradients clipped."""

import math

import torch
from torch import Tensor, nn

from saelab.runs import Optim, Run


def learning_rate(run: Run) -> float:
    """The run's peak learning rate: the one given, or 2e-4 * sqrt(16384 / n_latents), raised for
    short runs.

    The width rule is that of Gao et al. 2024 (2406.04093, section 2) as `dictionary_learning` uses
    it for 100,000 steps. Runs of a few hundred to a few thousand steps want more: the factor
    sqrt(60,000 / steps), at most 12, was measured on the embedded model (docs/lab-log.md) and is an
    assumption elsewhere.
    """
    if run.optim.lr is not None:
        return run.optim.lr
    short = min(12.0, max(1.0, math.sqrt(60_000 / max(1, run.source.steps))))
    return 2e-4 * math.sqrt(16_384 / run.spec.n_latents) * short


def lr_factor(
    optim: Optim, step: int, steps: int, restart: float = 0.0, rate: float = 1.0
) -> float:
    """Share of the learning rate at `step` (0-based) of `steps`: warm-up, constant, linear decay
    towards 0.

    With `restart` the last share of the steps, like the steps before it, has a schedule of its own,
    which rises to `rate`.
    """
    last = first_of_last(steps, restart)
    if step >= last:
        return rate * lr_factor(optim, step - last, steps - last)
    steps = last
    warm = min(1.0, (step + 1) / optim.warmup) if optim.warmup > 0 else 1.0
    rest = (steps - step) / (steps * optim.decay) if optim.decay > 0 else 1.0
    return min(warm, rest, 1.0)


def first_of_last(steps: int, share: float) -> int:
    """The first (0-based) of the last `share` of the steps; `steps` for a share of 0."""
    return math.ceil(steps * (1 - share))


def build_optimizer(parts: list[nn.Module], run: Run) -> torch.optim.Adam:
    """Fused Adam with one parameter group per module that has parameters."""
    groups = [[p for p in part.parameters() if p.requires_grad] for part in parts]
    betas = (run.optim.beta1, run.optim.beta2)
    return torch.optim.Adam(
        [{"params": group} for group in groups if group],
        lr=learning_rate(run),
        betas=betas,
        fused=True,
    )


def take_step(optimizer: torch.optim.Adam, lr: float, clip: float) -> None:
    """Clip each group's gradient to norm `clip`, then step with `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        torch.nn.utils.clip_grad_norm_(group["params"], clip)
    optimizer.step()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `<parameter index>.<key>`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, row in state.items() for key, value in row.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`.

    A moment gets its parameter's layout in memory: a file has none, and fused Adam pairs the two by
    storage, so that the moments of a transposed parameter (`W_enc`) would be those of other
    entries.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    rows: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            tensor = torch.empty_like(parameter).copy_(tensor)
        rows.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": rows})
