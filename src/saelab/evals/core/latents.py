"""One number per latent: how often it fires, how strongly, and how its weights lie."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from saelab.evals.common.fold import decoder_norms
from saelab.figures import Axis, Steps
from saelab.stats import Resampling
from saelab.store import plain
from saelab.types import Dictionary, Score, structure_of

DENSITY_EDGES = [-6 + 0.25 * i for i in range(25)]  # log10 of the share of tokens
# documents are resampled in at most this many groups, so that counts per latent stay small
GROUPS = 64
N_BOOT = 200  # resamples of counts per latent
WEIGHTS_ONLY = "no interval: a property of the weights, not of a sample"
NEVER_FIRED = (
    "no interval: resampling documents can only lose latents that fired, never find new ones"
)


@dataclass(frozen=True)
class LatentProfile:
    """One number per latent `[L]`; NaN where undefined, None of what there is no encoder for."""

    density: Tensor  # share of the evaluated tokens on which the latent fired
    mean_activation: Tensor  # over the tokens on which it fired, decoder norm folded in
    consistency: Tensor  # tokens on which it fired per window in which it fired
    max_decoder_cosine: Tensor  # with any other latent
    max_encoder_cosine: Tensor | None = None
    encoder_norm: Tensor | None = None
    encoder_bias: Tensor | None = None
    encoder_decoder_cosine: Tensor | None = None

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


class Firings:
    """Running counts over the evaluated tokens."""

    def __init__(self, n_latents: int, n_docs: int):
        self.groups = min(GROUPS, n_docs)
        # tokens per group of documents; exact in fp32 up to 2^24
        self.fired = torch.zeros(self.groups, n_latents)
        self.tokens = torch.zeros(self.groups)
        self.windows = torch.zeros(n_latents)
        self.mass = torch.zeros(n_latents, dtype=torch.double)

    def add(self, z: Tensor, doc: Tensor, window: Tensor) -> None:
        """Codes `[n, L]` of tokens of whole windows, their documents `[n]` and windows `[n]`."""
        active = (z > 0).float()  # [n, L]
        group = doc % self.groups
        self.fired.index_add_(0, group, active)
        self.tokens.index_add_(0, group, torch.ones(len(z)))
        _, row = window.unique(return_inverse=True)
        per_window = torch.zeros(int(row.max()) + 1, z.shape[1]).index_add_(0, row, active)
        self.windows += (per_window > 0).sum(0)
        self.mass += z.sum(0, dtype=torch.double)

    def profile(self, dictionary: Dictionary) -> LatentProfile:
        """The latents' profile; consistency and mean activation of a dead latent are NaN."""
        fired = self.fired.sum(0)
        W_dec = dictionary.directions.detach().float()  # [L, D]
        return LatentProfile(
            density=fired / self.tokens.sum(),
            mean_activation=(self.mass / fired).float() * decoder_norms(dictionary).cpu(),
            consistency=fired / self.windows,
            max_decoder_cosine=max_cosine(W_dec).cpu(),
            **_of_encoder(dictionary, W_dec),
        )

    def frequent(self, share: float) -> Score:
        """Share of latents with density over `share`, its interval over groups of documents."""
        sums = torch.cat([self.tokens.unsqueeze(1), self.fired], 1)  # [G, 1 + L]
        resampling = Resampling(sums, n_boot=N_BOOT)
        return resampling.score(lambda s: (s[:, 1:] > share * s[:, :1]).double().mean(1))


def latent_scores(firings: Firings, profile: LatentProfile) -> dict[str, Score]:
    """Shares of latents and mean cosines; the encoder's is undefined without an encoder matrix."""
    dead = float((profile.density == 0).double().mean())
    encoder = profile.max_encoder_cosine
    return {
        "dead": Score(dead, reason=NEVER_FIRED),
        "frac_alive": Score(1 - dead, reason=NEVER_FIRED),
        "freq_over_1_percent": firings.frequent(0.01),
        "freq_over_10_percent": firings.frequent(0.1),
        "average_max_decoder_cosine_sim": _weights_score(profile.max_decoder_cosine),
        "average_max_encoder_cosine_sim": Score(None, reason="there is no encoder matrix")
        if encoder is None
        else _weights_score(encoder),
    }


def normalized_frequent(density: Tensor, share: float) -> Score:
    """SAEBench's share of all firings made by latents with density over `share`, else 0."""
    total = float(density.sum())
    value = float(density[density > share].sum()) / total if total > 0 else 0.0
    return Score(value, reason="no interval: reported as SAEBench does")


def max_cosine(rows: Tensor) -> Tensor:
    """The largest cosine of each row of `[L, D]` with another one, `[L]`; -inf if there is none."""
    unit = torch.nn.functional.normalize(rows.float(), dim=1)
    best = []
    for start in range(0, len(unit), 1024):
        cosine = unit[start : start + 1024] @ unit.T  # [<=1024, L]
        cosine.diagonal(start).fill_(-torch.inf)
        best.append(cosine.max(1).values)
    return torch.cat(best)


def _of_encoder(dictionary: Dictionary, W_dec: Tensor) -> dict[str, Tensor]:
    """What a profile says of the encoder, where the dictionary says that it has one."""
    structure = structure_of(dictionary)
    bias = structure.encoder_bias
    columns = {} if bias is None else {"encoder_bias": bias.detach().float().cpu()}
    if structure.encoder is None:
        return columns
    W_enc = structure.encoder.detach().float()  # [D, L]
    return {
        "max_encoder_cosine": max_cosine(W_enc.T).cpu(),
        "encoder_norm": W_enc.norm(dim=0).cpu(),
        "encoder_bias": torch.zeros(W_enc.shape[1]),
        "encoder_decoder_cosine": torch.cosine_similarity(W_enc.T, W_dec).cpu(),
        **columns,
    }


def _weights_score(cosines: Tensor) -> Score:
    if len(cosines) < 2:
        return Score(None, reason="a single latent has no other latent to be compared with")
    return Score(float(cosines.double().mean()), n=len(cosines), reason=WEIGHTS_ONLY)


def _numbers(values: Tensor | None) -> list[float | None] | None:
    """float32 values in their shortest exact decimal form, non-finite ones null."""
    return None if values is None else plain([float(f"{v:.9g}") for v in values.float().tolist()])
