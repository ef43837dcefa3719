"""A dictionary read on held-out activations: whether it fits them, and its codes piece by piece."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from saelab.types import Dictionary, Hook, Windows

CODES_AT_ONCE = 1 << 22  # numbers


def check_latents(dictionary: Dictionary) -> None:
    """Raise `ValueError` when a dictionary has no latents."""
    if not len(dictionary.directions):
        raise ValueError("the dictionary has no latents; there is nothing to evaluate")


def check_fits(dictionary: Dictionary, d_in: int, hook: Hook) -> None:
    """Raise `ValueError` when a dictionary has no latents, another width than activations of width
    `d_in`, or reads another place of the model than the `hook` that they come from.
    """
    check_latents(dictionary)
    width, own = dictionary.directions.shape[1], dictionary.hook
    if width != d_in:
        raise ValueError(
            f"the dictionary has width {width}, the activations {d_in}; they belong to different "
            "hooks"
        )
    if own is not None and own != hook:
        raise ValueError(
            f"the dictionary reads {own.name}, the data {hook.name}; prepare data at {own.name}"
        )


def encoded(dictionary: Dictionary, x: Tensor) -> Iterator[Tensor]:
    """Codes `[n, L]` of activations `[N, D]` in order, at most 2^22 numbers at a time."""
    where = dictionary.directions
    for piece in x.split(max(1, CODES_AT_ONCE // len(where))):
        yield dictionary.encode(piece.to(where.device))


def kept_activations(windows: Sequence[Windows], hook: Hook) -> Tensor:
    """Activations `[N, D]` at the kept positions of captured windows, in order.

    Raises `ValueError` when there are fewer than two, or one is not finite.
    """
    if sum(int(batch.keep.sum()) for batch in windows) < 2:
        raise ValueError(
            "no token is left to evaluate: every window is empty or masked; give a longer "
            "held-out text"
        )
    x = torch.cat([batch.flat.float().cpu() for batch in windows])
    if not x.isfinite().all():
        raise ValueError(
            f"activations at {hook.name} are not finite; the model itself is broken there"
        )
    return x
