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
from saelab.evals.common.interventions import latents_of
from saelab.evals.common.reading import check_fits, encoded, kept_activations
from saelab.evals.nces.effects import Budget, Measured, effects_by_type, estimate
from saelab.evals.nces.summary import summarise
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


def prepare(held: HeldOut) -> NcesData:
    """One backward through the model's upper layers on held-out windows.

    Raises `TypeError` for what is no language model, and `ValueError` when no token is left to
    evaluate, an activation is not finite or the upper layers give no gradient.
    """
    lm, windows = held.model, [batch for batch, _ in held.batches]
    check_model(lm)
    x = kept_activations(windows, lm.hook)
    generator = torch.Generator().manual_seed(0)
    gradients = [
        sampled_gradients(lm, batch.x, state, generator)[batch.keep].float().cpu()
        for batch, state in held.batches
    ]
    doc = torch.cat([batch.doc[batch.keep].cpu() for batch in windows])
    return NcesData(
        captured_text(lm, windows),
        x,
        torch.cat(gradients),
        doc.unique(return_inverse=True)[1],
        control_covariance(x),
    )


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
    mass = (latents.codes.frequency * guess.effect).nan_to_num(-torch.inf)
    if chosen is not None:
        latent = check_latents(latents.codes, torch.tensor(list(chosen), dtype=torch.long))
        weight = torch.ones(len(latent))
    else:
        latent, weight = _choose(latents.live, mass, n_latents, torch.Generator().manual_seed(seed))
    effects = (
        effects_by_type(data.text, latents, latent, data.covariance, budget) if len(latent) else {}
    )
    n, live = len(latents.directions), len(latents.live)
    dead = int((latents.codes.count == 0).sum())
    facts = {
        "hook": data.text.lm.hook.name,
        "tokens": len(data.x),
        "documents": int(data.doc.max()) + 1,
        "n_latents": n,
        "dead": dead,
        "rare": n - live - dead,
        "measured": len(latent),
        "contexts": contexts,
        "draws": draws,
        "following": budget.following,
        "seed": seed,
    }
    return summarise(Measured(latents, guess, effects, latent, weight), data.doc, types, facts)


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
