"""A dictionary whose codes are selected over the batch, as in training, not by its threshold."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from saelab.types import Dictionary, Hook, Structure, structure_of


@runtime_checkable
class SelectsOverBatch(Dictionary, Protocol):
    """A dictionary that knows whether its training selected codes over the whole batch."""

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
        return self.sae.directions

    @property
    def structure(self) -> Structure:
        return structure_of(self.sae)

    def encode(self, x: Tensor) -> Tensor:
        return self.sae.encode_batch(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.sae.decode(z)


def batch_selected(dictionary: Dictionary) -> BatchSelected | None:
    """The dictionary under batch selection; None where its training knows none."""
    if isinstance(dictionary, SelectsOverBatch) and dictionary.selects_over_batch:
        return BatchSelected(dictionary, dictionary.hook)
    return None
