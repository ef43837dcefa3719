"""Decoder norms folded into the codes, so that codes of different dictionaries are in the same
unit.
"""

from dataclasses import dataclass

from torch import Tensor

from saelab.types import Dictionary, Hook


@dataclass
class Folded:
    """A dictionary with unit directions: z' = z * |W_dec|, W_dec' = W_dec / |W_dec|, the same
    reconstruction.
    """

    inner: Dictionary
    norms: Tensor  # [L], 1 where a direction is zero
    hook: Hook | None  # where the inner dictionary reads

    @property
    def directions(self) -> Tensor:
        return self.inner.directions / self.norms.unsqueeze(1)

    def encode(self, x: Tensor) -> Tensor:
        """Activations `[..., D]` -> codes `[..., L]` in units of the activation's norm."""
        return self.inner.encode(x) * self.norms

    def decode(self, z: Tensor) -> Tensor:
        """Folded codes `[..., L]` -> the same reconstruction `[..., D]`."""
        return self.inner.decode(z / self.norms)


def decoder_norms(dictionary: Dictionary) -> Tensor:
    """|W_dec| per latent `[L]`, 1 where a direction is zero (its codes add nothing)."""
    norms = dictionary.directions.detach().float().norm(dim=1)
    return norms.where(norms > 0, 1.0)


def fold_decoder_norms(dictionary: Dictionary) -> Folded:
    """The same dictionary with unit directions, for what depends on the scale of the codes."""
    return Folded(dictionary, decoder_norms(dictionary), dictionary.hook)
