"""The result of the core evaluation: scores in two forms, a profile of every latent, and json both
ways.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from saelab.store import plain
from saelab.types import Score

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


@dataclass(frozen=True)
class CoreResult:
    """What `measure` returns. `scores`: corrected forms; `compatible`: what SAEBench 0.6.0 ships,
    formula for formula.
    """

    scores: dict[str, Score]
    compatible: dict[str, Score]
    latents: LatentProfile
    # hook, tokens, windows, documents, context, d_in, n_latents, prompts per compatible batch
    facts: dict[str, Any]

    @property
    def density(self) -> Tensor:
        """Share of the evaluated tokens on which each latent fired, `[L]`."""
        return self.latents.density

    @property
    def density_histogram(self) -> dict[str, Any]:
        """log10 densities of the latents that fired: bin `edges` (E), `counts` (E - 1), and the
        number of `dead` ones.

        Densities under the first edge are counted in the first bin.
        """
        alive = (
            self.density[self.density > 0]
            .double()
            .log10()
            .clamp(DENSITY_EDGES[0], DENSITY_EDGES[-1])
        )
        counts = torch.histogram(alive, torch.tensor(DENSITY_EDGES, dtype=torch.double)).hist
        return {
            "edges": DENSITY_EDGES,
            "counts": counts.long().tolist(),
            "dead": len(self.density) - len(alive),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined is null. Inverse: `from_json`."""
        latents = {f.name: _numbers(getattr(self.latents, f.name)) for f in fields(LatentProfile)}
        return {
            "eval": "core",
            "facts": plain(self.facts),
            "scores": {name: plain(asdict(score)) for name, score in self.scores.items()},
            "compatible": {name: plain(asdict(score)) for name, score in self.compatible.items()},
            "density_histogram": self.density_histogram,
            "latents": latents,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "CoreResult":
        """A result from `to_json`. Raises `ValueError` when `value` is not one."""
        try:
            latents: dict[str, Any] = {
                f.name: _tensor(value["latents"][f.name]) for f in fields(LatentProfile)
            }
            return CoreResult(
                {name: Score(**score) for name, score in value["scores"].items()},
                {name: Score(**score) for name, score in value["compatible"].items()},
                LatentProfile(**latents),
                dict(value["facts"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"this is no core result of saelab ({error!r}); measure again"
            ) from error


def _numbers(values: Tensor | None) -> list[float | None] | None:
    """float32 values in their shortest exact decimal form, non-finite ones null."""
    return None if values is None else plain([float(f"{v:.9g}") for v in values.float().tolist()])


def _tensor(values: list[float | None] | None) -> Tensor | None:
    return (
        None if values is None else torch.tensor([float("nan") if v is None else v for v in values])
    )
