"""Named compositions. `VARIANTS` is the table; a new one is a function and a line here."""

import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches

import torch

from saelab.runs import Spec
from saelab.terms.base import Variant
from saelab.types import Hook
from saelab.variants.baselines import (
    batch_topk,
    frozen,
    gated,
    jump_relu,
    matryoshka,
    p_anneal,
    standard,
    standard_trimmed,
    topk,
)
from saelab.variants.causal import (
    causal,
    causal_as_stated,
    causal_on_frontier,
    causal_on_standard,
    end_to_end,
    kl_finetune_5,
    kl_finetune_25,
)
from saelab.variants.frontier import frontier

VARIANTS: dict[str, Callable[..., Variant]] = {
    "standard": standard,
    "standard_trimmed": standard_trimmed,
    "p_anneal": p_anneal,
    "gated": gated,
    "jump_relu": jump_relu,
    "topk": topk,
    "batch_topk": batch_topk,
    "matryoshka": matryoshka,
    "frontier": frontier,
    "frozen": frozen,
    "causal": causal,
    "causal_as_stated": causal_as_stated,
    "causal_on_standard": causal_on_standard,
    "causal_on_frontier": causal_on_frontier,
    "end_to_end": end_to_end,
    "kl_finetune_25": kl_finetune_25,
    "kl_finetune_5": kl_finetune_5,
}


def settings_of(variant: str) -> dict[str, float]:
    """The numbers a variant can be tuned by, with their defaults. Raises `ValueError` for an
    unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"unknown variant {variant!r}{_nearest(variant, list(VARIANTS))}; known: "
            f"{', '.join(VARIANTS)}"
        )
    parameters = inspect.signature(VARIANTS[variant]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "l0"}


def check_spec(spec: Spec, d_in: int | None = None) -> None:
    """Refuse a spec that cannot be built: unknown variant or setting, sizes that make no sense.
    Raises `ValueError`.
    """
    allowed = settings_of(spec.variant)
    for name in spec.settings:
        if name not in allowed:
            raise ValueError(
                f"{spec.variant} has no setting {name!r}{_nearest(name, list(allowed))}; its "
                f"settings: {', '.join(allowed)}"
            )
    if not re.fullmatch(r"[\w.-]*", spec.label):
        raise ValueError(f"label {spec.label!r} names folders; use letters, digits, _ . and - only")
    if spec.n_latents < 1:
        raise ValueError(f"n_latents is {spec.n_latents}; it must be at least 1")
    if not 0 < spec.l0 < spec.n_latents:
        raise ValueError(
            f"l0 is {spec.l0:g}; it must be above 0 and below the number of latents, "
            f"{spec.n_latents:,}"
        )
    if d_in is not None and d_in < 1:
        raise ValueError(f"activations of width {d_in}; the width must be at least 1")


def build(spec: Spec, d_in: int, seed: int, hook: Hook | None = None) -> Variant:
    """The variant of `spec` for activations of width `d_in`; equal seeds give equal initial
    weights.

    Raises `ValueError` as `check_spec` does.
    """
    check_spec(spec, d_in)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        variant = VARIANTS[spec.variant](d_in, spec.n_latents, l0=spec.l0, **spec.settings)
    variant.sae.hook = hook
    return variant


def _nearest(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
