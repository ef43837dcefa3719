"""What the temporal terms compare: positions of one document, in pieces of text that a step reads
beside its main batch.

Legend: B pieces | T positions of one | S latents of the slow block.
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from saelab.terms.base import Step
from saelab.types import Windows

SLOW = "slow"  # the block's name in `SAE.blocks`


def slow_codes(step: Step, pieces: str) -> tuple[Windows, Tensor]:
    """The pieces of a step, and the codes of the slow block there `[B, T, S]`."""
    part = step.side(pieces)
    block = part.sae.blocks[SLOW]
    return part.windows, part.in_windows(part.z[:, block.start : block.stop])


@dataclass(frozen=True)
class Gap:
    """Pairs of positions of pieces, `offset` apart in them."""

    windows: Windows
    offset: int

    @cached_property
    def lag(self) -> Tensor:
        """Positions of the text between the two `[B, T - offset]`."""
        return self.later(self.windows.pos) - self.earlier(self.windows.pos)

    @cached_property
    def together(self) -> Tensor:
        """Whether both are kept and of one document, in order `[B, T - offset]`."""
        keep, doc = self.windows.keep, self.windows.doc
        same = self.earlier(doc) == self.later(doc)
        return self.earlier(keep) & self.later(keep) & same & (self.lag > 0)

    def earlier(self, values: Tensor) -> Tensor:
        """Of values `[B, T, *]` those at the first of each pair, `[B, T - offset, *]`."""
        return values[:, : values.shape[1] - self.offset]

    def later(self, values: Tensor) -> Tensor:
        """Those at the second of each pair."""
        return values[:, self.offset :]


def doubling(length: int) -> tuple[int, ...]:
    """The offsets 1, 2, 4, ... below the length of a piece."""
    return tuple(1 << i for i in range(max(0, (length - 1).bit_length())))
