"""The most interesting latents of a dictionary, with the text that activates them and the tokens
they promote.

Which latents (the rule): those that fire on between 1e-4 and 0.2 of the evaluated tokens; of these
at most 512 with the largest summed activation; of these, taken in turn, the next one by

- *effect*: mean activation times the standard deviation over the vocabulary of its logit effect, or
  how much it says when it speaks. Most of these are detectors of one token or of line ends.
- *breadth*: effect times the logarithm of the number of different tokens that it fires on (the
  perplexity of its activation over tokens), or how much it says about what many tokens share.
- *selectivity*: that logarithm times the share of the occurrences of those tokens on which it is
  silent, weighted by its activation, or how much it depends on more than the token it fires on.

Ties go to the lower index.

Logit effect: direction @ unembedding, minus its mean over the vocabulary (softmax does not see it).
The layers between the hook and the output are taken as the identity, and the final norm as a
constant scale without its gain: an approximate reading ("direct logit attribution"), in arbitrary
units, fair near the last layer and rough far from it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.evals.common.fold import decoder_norms
from saelab.evals.core.data import CoreData, codes
from saelab.evals.core.latents import Firings
from saelab.types import Dictionary, Windows

DENSITIES = (1e-4, 0.2)
CANDIDATES = 512
LATENTS_SHOWN, CONTEXTS_SHOWN = 24, 8  # contexts of each
BEFORE, AFTER = 32, 15  # tokens shown around the peak
RULE = (
    "They are taken in turn by effect (how much a latent says when it speaks), by breadth (effect "
    "times the logarithm of the number of different tokens that it fires on) and by selectivity "
    "(that logarithm times the share of the occurrences of those tokens on which it is silent), "
    f"among those that fire on {DENSITIES[0]:g} to {DENSITIES[1]:g} of the tokens."
)
N_TOKENS = 10  # promoted and suppressed tokens shown
N_BINS = 20


@dataclass(frozen=True)
class Context:
    """A piece of a window around the latent's strongest token there."""

    tokens: list[str]
    activations: list[float]  # per token, decoder norm folded in; 0 where masked
    peak: int  # index of the strongest token in `tokens`
    doc: int  # document number of that token
    window: int  # window of the evaluation data


@dataclass(frozen=True)
class LatentExample:
    """All that a page about one latent shows."""

    index: int
    chosen_for: str  # "effect", "breadth" or "selectivity"
    density: float  # share of evaluated tokens on which it fires
    mean_activation: float  # where it fires, decoder norm folded in: units of the activation's norm
    max_activation: float
    histogram: list[int]  # tokens per bin of the activation, where it fires
    edges: list[float]  # N_BINS + 1 edges of those bins, from 0 to the maximum
    promoted: list[tuple[str, float]]  # tokens with the largest logit effect, arbitrary units
    suppressed: list[tuple[str, float]]  # tokens with the smallest
    contexts: list[Context]  # from different windows, strongest first


def latent_examples(
    dictionary: Dictionary, data: CoreData, firings: Firings
) -> list[LatentExample]:
    """Pages for the most interesting latents (rule: see the module), fewer when fewer qualify;
    `firings` are those of the dictionary on these data.

    Deterministic; plain values throughout, so `dataclasses.asdict` gives json.
    """
    with torch.no_grad():
        norms = decoder_norms(dictionary)
        fired, mass = firings.fired.sum(0).double(), firings.mass * norms.cpu()
        density = fired / len(data.clean_ce)
        candidates = _candidates(density, mass)  # [C]
        if not len(candidates):
            return []
        unembed = data.lm.unembed().detach().float().cpu()  # [D, V]
        directions = dictionary.directions / norms.unsqueeze(1)  # unit rows
        effect = directions[candidates.to(norms.device)].float().cpu() @ unembed  # [C, V]
        effect -= effect.mean(1, keepdim=True)
        said = (mass / fired)[candidates] * effect.std(1, correction=0)
        tokens, silent = _contexts_of(dictionary, data, candidates)
        breadth = tokens.log()
        rankings = {"effect": said, "breadth": said * breadth, "selectivity": breadth * silent}
        chosen = _choose(rankings)
        z = _selected(dictionary, data, candidates[[i for i, _ in chosen]])  # [W, T, n]
        return [
            _page(data, z[..., place], effect[i], int(candidates[i]), why)
            for place, (i, why) in enumerate(chosen)
        ]


def _candidates(density: Tensor, mass: Tensor) -> Tensor:
    """Indices of the latents to choose from, `[C]`, at most `CANDIDATES`, in order of index."""
    low, high = DENSITIES
    allowed = torch.nonzero((density >= low) & (density <= high)).squeeze(1)
    strongest = mass[allowed].argsort(descending=True, stable=True)[:CANDIDATES]
    return allowed[strongest].sort().values


def _contexts_of(
    dictionary: Dictionary, data: CoreData, candidates: Tensor
) -> tuple[Tensor, Tensor]:
    """Number of different tokens that each candidate fires on, and the share of their occurrences
    on which it is silent, `[C]` each.
    """
    norms = decoder_norms(dictionary)
    candidates = candidates.to(norms.device)
    tokens = torch.cat([windows.tokens[windows.keep].cpu() for windows, _ in data.batches])
    _, places, occurrences = tokens.unique(return_inverse=True, return_counts=True)
    mass, fired = torch.zeros(2, len(candidates), len(occurrences), dtype=torch.double)
    for windows, _ in data.batches:
        for _, z in codes(dictionary, windows):
            z = (z * norms)[:, candidates].T.cpu().double()  # [C, n]
            here, places = places.split([z.shape[1], len(places) - z.shape[1]])
            mass.index_add_(1, here, z)
            fired.index_add_(1, here, (z > 0).double())
    share = mass / mass.sum(1, keepdim=True)
    return torch.special.entr(share).sum(1).exp(), 1 - (share * fired / occurrences).sum(1)


def _choose(rankings: dict[str, Tensor]) -> list[tuple[int, str]]:
    """Which candidates (their place) and why, from each ranking in turn."""
    orders = [
        [(i, name) for i in by.argsort(descending=True, stable=True).tolist()]
        for name, by in rankings.items()
    ]
    chosen: dict[int, str] = {}
    while len(chosen) < min(LATENTS_SHOWN, len(orders[0])):
        order = orders[len(chosen) % len(orders)]
        i, name = next(item for item in order if item[0] not in chosen)
        chosen[i] = name
    return list(chosen.items())


def _selected(dictionary: Dictionary, data: CoreData, latents: Tensor) -> Tensor:
    """Codes of a few latents at every token `[W, T, n]`, 0 where masked."""
    norms, batches = decoder_norms(dictionary), []
    latents = latents.to(norms.device)
    for windows, _ in data.batches:
        z = torch.zeros(*windows.keep.shape, len(latents))
        rows = [(z * norms)[:, latents].float().cpu() for _, z in codes(dictionary, windows)]
        if rows:
            z[windows.keep.cpu()] = torch.cat(rows)
        batches.append(z)
    return torch.cat(batches)


def _page(data: CoreData, z: Tensor, effect: Tensor, index: int, chosen_for: str) -> LatentExample:
    """The page of one latent from its codes `[W, T]` and its logit effect `[V]`."""
    active = z[z > 0]
    top = float(active.max())
    histogram = torch.histc(active, N_BINS, 0.0, top)
    peaks = z.amax(1).argsort(descending=True, stable=True)[:CONTEXTS_SHOWN]
    order = effect.argsort(descending=True, stable=True)
    return LatentExample(
        index=index,
        chosen_for=chosen_for,
        density=len(active) / len(data.clean_ce),
        mean_activation=_round(float(active.mean())),
        max_activation=_round(top),
        histogram=histogram.long().tolist(),
        edges=[_round(top * i / N_BINS) for i in range(N_BINS + 1)],
        promoted=_tokens(data, effect, order[:N_TOKENS]),
        suppressed=_tokens(data, effect, order.flip(0)[:N_TOKENS]),
        contexts=[_context(data, z[w], w) for w in peaks.tolist() if z[w].max() > 0],
    )


def _tokens(data: CoreData, effect: Tensor, ids: Tensor) -> list[tuple[str, float]]:
    """Some tokens with their logit effect."""
    return [
        (token, _round(float(value)))
        for token, value in zip(data.lm.decode(ids.tolist()), effect[ids], strict=True)
    ]


def _context(data: CoreData, z: Tensor, window: int) -> Context:
    """The tokens around the strongest one of a window, with their activations; `z [T]`."""
    windows, row = _locate(data, window)
    peak = int(z.argmax())
    around = slice(max(0, peak - BEFORE), peak + AFTER + 1)
    return Context(
        tokens=data.lm.decode(windows.tokens[row, around].tolist()),
        activations=[_round(a) for a in z[around].tolist()],
        peak=peak - around.start,
        doc=int(windows.doc[row, peak]),
        window=window,
    )


def _locate(data: CoreData, window: int) -> tuple[Windows, int]:
    """The LM batch that holds a window, and its row there."""
    for windows, _ in data.batches:
        if window < len(windows.x):
            return windows, window
        window -= len(windows.x)
    raise AssertionError("window numbers come from the same batches")


def _round(value: float) -> float:
    """Four significant digits: what a page shows, and a quarter of the bytes."""
    return float(f"{value:.4g}")
