"""Unit directions for true features: as far apart as asked, from an explicit generator."""

import torch
from torch import Tensor

from saelab.store import content_id


def feature_generator(family: str, seed: int) -> torch.Generator:
    """The randomness of the features of a family of worlds.

    Not `manual_seed(seed)`: an SAE trained with the same seed draws its initial weights from that
    very stream, so that it would start at the true features.
    """
    return torch.Generator().manual_seed(int(content_id(["features", family, seed], 15), 16))


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
    """n unit rows `[n, d]` that push each other apart: gradient steps on the squared cosines above
    `margin`.

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


def spread(
    n: int,
    d: int,
    generator: torch.Generator,
    *,
    target: float,
    tries: int = 2_000,
    rate: float = 0.05,
) -> Tensor:
    """n unit rows `[n, d]` whose largest |cosine| with another is, in the mean over rows, just
    below `target`.

    Random rows push each other apart until it is. Raises `ValueError` where that many rows do not
    fit that far apart.
    """
    rows = unit_rows(torch.randn(n, d, generator=generator))
    for _ in range(tries):
        cosines = (rows @ rows.T).fill_diagonal_(0)
        if cosines.abs().amax(1).mean() < target:
            return rows
        rows = unit_rows(rows - rate * ((cosines * (cosines.abs() > 0.8 * target)) @ rows))
    raise ValueError(
        f"{n} directions in {d} dimensions do not get their largest |cosine| down to {target:g}; "
        "ask for more or widen d"
    )
