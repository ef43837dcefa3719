"""A dictionary whose codes are selected over the batch it is given, as in training, instead of by
its threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from saelab.types import Dictionary, Hook


@runtime_checkable
class SelectsOverBatch(Dictionary, Protocol):
    """A dictionary that knows whether its training selected codes over the whole batch."""

    blocks: Mapping[str, range]

    @property
    def selects_over_batch(self) -> bool:
        """Whether there is a reading beside the one by thresholds."""
        ...

    def encode_batch(self, x: Tensor) -> Tensor:
        """Codes `[N, L]` of activations `[N, D]`, selected over all N as at the end of training."""
        ...


@dataclass
class BatchSelected:
    """An SAE read with batch selection: the k * N largest entries of the N activations of one call.

    The threshold is set on the training distribution; where an evaluation shifts it, the two
    readings differ.
    """

    sae: SelectsOverBatch
    hook: Hook | None

    @property
    def directions(self) -> Tensor:
        """Decoder rows `[L, D]`."""
        return self.sae.directions

    @property
    def blocks(self) -> Mapping[str, range]:
        """Of the SAE."""
        return self.sae.blocks

    def encode(self, x: Tensor) -> Tensor:
        """Activations `[..., D]` -> codes `[..., L]`."""
        return self.sae.encode_batch(x)

    def decode(self, z: Tensor) -> Tensor:
        """Codes `[..., L]` -> reconstruction `[..., D]`."""
        return self.sae.decode(z)


def batch_selected(dictionary: Dictionary) -> BatchSelected | None:
    """The dictionary under batch selection; None where its training does not select over the
    batch.
    """
    if isinstance(dictionary, SelectsOverBatch) and dictionary.selects_over_batch:
        return BatchSelected(dictionary, dictionary.hook)
    return None
