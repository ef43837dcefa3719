"""A smoothing read-out: codes of an SAE averaged over the past of the text, at inference."""

import torch
from torch import Tensor


def smooth(
    z: Tensor, decay: float, *, doc: Tensor | None = None, keep: Tensor | None = None
) -> Tensor:
    """Causal exponential average of codes `[..., T, L]` over the positions of a text.

    s(t) = decay s(t - 1) + (1 - decay) z(t), from 0 at the start of every document (`doc [..., T]`)
    on. Positions that are not kept (`keep [..., T]` bool) have 0 and are passed over. It brings out
    what persists: a latent of noisy firings says more about its state afterwards. 0 changes
    nothing, .85 looks back over about 7 tokens. Raises `ValueError` for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay is {decay}; give a number from 0 (no smoothing) to below 1")
    state, smoothed = torch.zeros_like(z[..., 0, :]), torch.zeros_like(z)
    for t in range(z.shape[-2]):
        if doc is not None and t:
            state = state * (doc[..., t] == doc[..., t - 1]).unsqueeze(-1)
        following = decay * state + (1 - decay) * z[..., t, :]
        if keep is None:
            smoothed[..., t, :] = state = following
        else:
            here = keep[..., t].unsqueeze(-1)
            smoothed[..., t, :] = following * here
            state = torch.where(here, following, state)
    return smoothed
