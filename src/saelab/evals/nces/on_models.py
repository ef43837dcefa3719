"""How causal the latents of a dictionary are for a language model: effects of interventions, beside
matched controls.

`prepare` runs once per (model, hook, text): one backward through the upper layers gives, for every
dictionary, an estimate of all its latents' effects. `measure` then intervenes on some latents
exactly, on the text itself.

Which ones: those of the largest estimated effect on the text (frequency times effect), and as many
again drawn evenly from the other live latents. The drawn ones stand for all that were not, so that
scores describe the whole dictionary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.effects.intervene import TYPES, control_covariance, sampled_gradients
from saelab.effects.pairs import check_latents
from saelab.effects.reactions import MAX_BYTES, Text, captured_text, check_model
from saelab.evals.common.reading import check_fits, encoded
from saelab.evals.nces.effects import Budget, estimate, exact, latents_of
from saelab.evals.nces.summary import Measured, summarise
from saelab.evals.result import Result
from saelab.ground.held_out import HeldOut
from saelab.types import Dictionary


@dataclass(frozen=True)
class NcesData:
    """Held-out activations at kept positions, with what all dictionaries at this hook share."""

    text: Text
    x: Tensor  # [N, D]
    gradients: Tensor  # [N, D] of labels sampled from the model
    doc: Tensor  # [N] which document, from 0
    covariance: Tensor  # [D, D] of the control


def prepare(held: HeldOut, *, seed: int = 0) -> NcesData:
    """One backward through the model's upper layers on held-out windows.

    Raises `TypeError` for what is no language model, and `ValueError` when no token is left to
    evaluate, an activation is not finite or the upper layers give no gradient.
    """
    lm = held.model
    check_model(lm)
    generator = torch.Generator().manual_seed(seed)
    windows, xs, gradients = [], [], []
    for part, state in held.batches:
        if not part.flat.isfinite().all():
            raise ValueError(
                f"activations at {lm.hook.name} are not finite; the model itself is broken there"
            )
        gradient = sampled_gradients(lm, part.x, state, generator)
        windows.append(part)
        xs.append(part.flat.float().cpu())
        gradients.append(gradient[part.keep].float().cpu())
    x = torch.cat(xs) if xs else torch.zeros(0, lm.d_in)
    if len(x) < 2:
        raise ValueError(
            "no token is left to evaluate: every window is empty or masked; give a longer "
            "held-out text"
        )
    doc = torch.cat([part.doc[part.keep].cpu() for part in windows]).unique(return_inverse=True)[1]
    return NcesData(captured_text(lm, windows), x, torch.cat(gradients), doc, control_covariance(x))


@torch.no_grad()
def measure(
    dictionary: Dictionary,
    data: NcesData,
    *,
    n_latents: int = 48,
    chosen: Sequence[int] | None = None,
    types: Sequence[str] = TYPES,
    contexts: int = 32,
    draws: int = 1,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
) -> Result:
    """Estimated effects of all latents and exact ones of `n_latents`, or of the `chosen` ones.
    Deterministic.

    Cost: n_latents * contexts * types * (1 + draws) rows through the upper layers. Raises
    `ValueError` for a dictionary of another width or hook, for chosen latents that are dead, rare
    or do not exist, and for numbers that measure nothing.
    """
    check_fits(dictionary, data.x.shape[1], data.text.lm.hook)
    budget = Budget(types, contexts, draws, max_bytes=max_bytes, seed=seed)
    latents = latents_of(dictionary, encoded(dictionary, data.x))
    guess = estimate(latents, data.gradients.unsqueeze(0), data.covariance, data.doc)
    mass = (latents.codes.frequency * guess.mean_effect).nan_to_num(-torch.inf)
    if chosen is not None:
        latent = check_latents(latents.codes, torch.tensor(list(chosen), dtype=torch.long))
        weight = torch.ones(len(latent))
    else:
        latent, weight = _choose(latents.live, mass, n_latents, torch.Generator().manual_seed(seed))
    found = exact(data.text, latents, latent, data.covariance, budget) if len(latent) else {}
    facts = {
        "hook": data.text.lm.hook.name,
        "tokens": len(data.x),
        "documents": int(data.doc.max()) + 1,
        "n_latents": len(latents.directions),
        "dead": latents.dead,
        "rare": len(latents.directions) - len(latents.live) - latents.dead,
        "measured": len(latent),
        "contexts": contexts,
        "draws": draws,
        "following": budget.following,
        "seed": seed,
    }
    return summarise(Measured(latents, guess, found, latent, weight, data.doc), types, facts)


def _choose(
    live: Tensor, mass: Tensor, n_latents: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Latents `[m]`, ascending, and how many live ones each stands for `[m]`."""
    if n_latents < 1:
        raise ValueError(f"n_latents is {n_latents}; measure at least 1")
    if len(live) <= n_latents:
        return live, torch.ones(len(live))
    order = live[mass[live].argsort(descending=True, stable=True)]
    n_top = n_latents // 2
    rest = order[n_top:]
    drawn = rest[torch.randperm(len(rest), generator=generator)[: n_latents - n_top]]
    weight = torch.cat([torch.ones(n_top), torch.full((len(drawn),), len(rest) / len(drawn))])
    latent, place = torch.cat([order[:n_top], drawn]).sort()
    return latent, weight[place]
