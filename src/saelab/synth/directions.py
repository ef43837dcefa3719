"""Unit directions for true features: as far apart as asked, from an explicit generator."""

import torch
from torch import Tensor

from saelab.store import content_id

RATE = 0.05  # of the steps by which rows push each other apart
MARGIN = 0.1  # |cosine| up to which rows that are only kept apart do not push
TRIES = 2_000  # steps after which rows do not fit as far apart as asked


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
    n: int, d: int, generator: torch.Generator, *, steps: int = 300, fixed: Tensor | None = None
) -> Tensor:
    """n random unit rows `[n, d]` after a number of steps in which they push each other apart.

    `fixed [m, d]`: rows that push but do not move.
    """
    fixed = torch.empty(0, d) if fixed is None else fixed
    rows = torch.cat([fixed, unit_rows(torch.randn(n, d, generator=generator))])
    for _ in range(steps):
        push = _push(rows, _cosines(rows), MARGIN)
        push[: len(fixed)] = 0
        rows = unit_rows(rows - push)
    return rows[len(fixed) :]


def spread(n: int, d: int, generator: torch.Generator, *, target: float) -> Tensor:
    """n unit rows `[n, d]` whose largest |cosine| with another is, in the mean over rows, just
    below `target`.

    Random rows push each other apart until it is. Raises `ValueError` where that many rows do not
    fit that far apart.
    """
    rows = unit_rows(torch.randn(n, d, generator=generator))
    for _ in range(TRIES):
        cosines = _cosines(rows)
        if cosines.abs().amax(1).mean() < target:
            return rows
        rows = unit_rows(rows - _push(rows, cosines, 0.8 * target))
    raise ValueError(
        f"{n} directions in {d} dimensions do not get their largest |cosine| down to {target:g}; "
        "ask for more or widen d"
    )


def _cosines(rows: Tensor) -> Tensor:
    """Cosines `[n, n]` of unit rows with the others, 0 with themselves."""
    return (rows @ rows.T).fill_diagonal_(0)


def _push(rows: Tensor, cosines: Tensor, margin: float) -> Tensor:
    """What a step takes from the rows: the gradient of the squared cosines above `margin`."""
    return RATE * ((cosines * (cosines.abs() > margin)) @ rows)
