"""Unit directions for true features: as far apart as asked, from an explicit generator."""

import torch
from torch import Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """Rows divided by their norm."""
    return rows / rows.norm(dim=-1, keepdim=True)


def orthonormal(d: int, generator: torch.Generator) -> Tensor:
    """A random orthonormal basis `[d, d]`, rows and columns."""
    return torch.linalg.qr(torch.randn(d, d, generator=generator))[0]


def repelled(
    n: int,
    d: int,
    generator: torch.Generator,
    *,
    steps: int = 300,
    rate: float = 0.05,
    margin: float = 0.1,
    fixed: Tensor | None = None,
) -> Tensor:
    """n unit rows `[n, d]` that push each other apart: gradient steps on the squared cosines above `margin`.

    `fixed [m, d]`: rows that push but do not move.
    """
    rows = unit_rows(torch.randn(n, d, generator=generator))
    held = 0 if fixed is None else len(fixed)
    rows = rows if fixed is None else torch.cat([fixed, rows])
    for _ in range(steps):
        cosines = (rows @ rows.T).fill_diagonal_(0)
        push = rate * ((cosines * (cosines.abs() > margin)) @ rows)
        push[:held] = 0
        rows = unit_rows(rows - push)
    return rows[held:]
