"""A dictionary whose codes are selected over the batch it is given, as in training, instead of by
its threshold.
"""

from dataclasses import dataclass

from torch import Tensor

from saelab.sae.activations import BatchTopK
from saelab.sae.module import SAE
from saelab.types import Dictionary, Hook


@dataclass
class BatchSelected:
    """An SAE read with batch selection: the k * N largest entries of the N activations of one call.

    The threshold is set on the training distribution; where an evaluation shifts it, the two
    readings differ.
    """

    sae: SAE
    hook: Hook | None

    @property
    def directions(self) -> Tensor:
        """Decoder rows `[L, D]`."""
        return self.sae.directions

    @property
    def blocks(self) -> dict[str, range]:
        """Of the SAE."""
        return self.sae.blocks

    def encode(self, x: Tensor) -> Tensor:
        """Activations `[..., D]` -> codes `[..., L]`."""
        return self.sae.prune(x, self.sae.codes(x, 1.0)[1])

    def decode(self, z: Tensor) -> Tensor:
        """Codes `[..., L]` -> reconstruction `[..., D]`."""
        return self.sae.decode(z)


def batch_selected(dictionary: Dictionary) -> BatchSelected | None:
    """The dictionary under batch selection; None where its training does not select over the
    batch.
    """
    if isinstance(dictionary, SAE) and isinstance(dictionary.act, BatchTopK):
        return BatchSelected(dictionary, dictionary.hook)
    return None
