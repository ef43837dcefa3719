"""What evaluations ask of a dictionary first: whether it belongs to the data, and its codes."""

from collections.abc import Iterator

from torch import Tensor

from saelab.types import Dictionary

CODES_AT_ONCE = 1 << 22  # numbers


def check_fits(dictionary: Dictionary, d_in: int, hook: str) -> None:
    """Raise `ValueError` for a dictionary of another width or hook than the data's."""
    width, reads = dictionary.directions.shape[1], dictionary.hook
    if width != d_in:
        raise ValueError(
            f"the dictionary has width {width}, the activations {d_in}; they belong to different "
            "hooks"
        )
    if reads is not None and reads.name != hook:
        raise ValueError(
            f"the dictionary reads {reads.name}, the data {hook}; prepare data at {reads.name}"
        )


def codes_in_pieces(dictionary: Dictionary, x: Tensor) -> Iterator[Tensor]:
    """Codes of activations `[N, D]`, in order, so many rows `[n, L]` at once as memory allows."""
    where = dictionary.directions
    for piece in x.split(max(1, CODES_AT_ONCE // len(where))):
        yield dictionary.encode(piece.to(where.device))
