"""One number per latent: how often it fires, how strongly, and how its weights lie."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from saelab.figures import Axis, Steps
from saelab.store import plain

DENSITY_EDGES = [-6 + 0.25 * i for i in range(25)]  # log10 of the share of tokens


@dataclass(frozen=True)
class LatentProfile:
    """One number per latent `[L]`; NaN where undefined, None where the dictionary has no encoder
    matrix.
    """

    density: Tensor  # share of the evaluated tokens on which the latent fired
    mean_activation: Tensor  # over the tokens on which it fired, decoder norm folded in
    consistency: Tensor  # tokens on which it fired per window in which it fired
    max_decoder_cosine: Tensor  # with any other latent
    max_encoder_cosine: Tensor | None
    encoder_norm: Tensor | None
    encoder_bias: Tensor | None
    encoder_decoder_cosine: Tensor | None

    @property
    def density_figure(self) -> Steps:
        """log10 densities of the latents that fired, as shares of all latents, and the dead share.

        Densities under the first edge are counted in the first bin.
        """
        low, high = DENSITY_EDGES[0], DENSITY_EDGES[-1]
        alive = self.density[self.density > 0].double().log10().clamp(low, high)
        counts = torch.histogram(alive, torch.tensor(DENSITY_EDGES, dtype=torch.double)).hist
        return Steps(
            "density",
            "Firing densities",
            "The grey bar is the share of latents that never fired on the evaluation text.",
            Axis("log10 of the share of tokens it fires on"),
            Axis("share of latents"),
            DENSITY_EDGES,
            {"latents": (counts / len(self.density)).tolist()},
            apart={"dead": 1 - len(alive) / len(self.density)},
        )

    def to_json(self) -> dict[str, list[float | None] | None]:
        """Numbers per latent by name."""
        return {field.name: _numbers(getattr(self, field.name)) for field in fields(self)}


def _numbers(values: Tensor | None) -> list[float | None] | None:
    """float32 values in their shortest exact decimal form, non-finite ones null."""
    return None if values is None else plain([float(f"{v:.9g}") for v in values.float().tolist()])
