"""The field's baselines, each by its paper's formula. Activations are scaled to mean squared norm 1
before they arrive.

Every function takes the width of the activations, the number of latents and the L0 asked for, and
returns a `Variant`. Where sparsity is a penalty, its coefficient is steered so that the L0 is the
one asked for: an untuned L1 baseline would make any comparison worthless.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from saelab.numbers import Count, Kind, NonNegative, Positive, Share, Times
from saelab.sae.activations import BatchTopK, Gated, ReLU, TopK, Trimmed
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE
from saelab.terms.base import Event, Objective, Steered, Term, TermFunction, Variant
from saelab.terms.events import resample, start_sparse
from saelab.terms.reconstruct import aux_k, gate_mse, mse, prefix_mse
from saelab.terms.schedules import linear
from saelab.terms.sparsity import gate_l1, jump_l0, l1, p_norm
from saelab.types import Number

START_L0 = 3.0  # penalty-based variants start from this multiple of the L0 asked for
# of training: late enough to know who is dead, early enough to recover
RESAMPLE_AT = (0.15, 0.3, 0.45)

Coefficient = Annotated[
    NonNegative, "fixed weight of the sparsity penalty, which then decides the L0; 0: steered"
]
Warmup = Annotated[Share, "of training, in which the sparsity penalty comes in"]
Aux = Annotated[NonNegative, "weight of AuxK, the loss that revives dead latents"]
Anneal = Annotated[Positive, "multiple of k that training starts from, for its first 40 %"]
Refine = Annotated[Share, "size of the LISTA step after which x is read again; 0: none"]


def _sparse_loss(
    penalty: TermFunction,
    l0: float,
    coefficient: float,
    warmup: float,
    *,
    initial: float = 0.05,
    start: float = START_L0,
) -> Term:
    """The penalty with the coefficient given, or (0) steered to `l0` from `start` times that."""
    if coefficient > 0:
        return Term("sparsity", penalty, linear(0.0, coefficient, until=warmup))
    steered = Steered(l0, initial=initial, warmup=warmup, start=start)
    return Term("sparsity", penalty, steered=steered)


def _penalised(sae: SAE, l0: float, *terms: Term, calibrate: float | None = None) -> Variant:
    """A variant whose codes cost something; it starts sparse, and dead latents are resampled."""
    events = Event((0.0,), start_sparse(START_L0 * l0)), Event(RESAMPLE_AT, resample)
    return Variant(sae, Objective(Term("mse", mse), *terms), events=events, calibrate=calibrate)


def selecting(sae: SAE, error: TermFunction, aux: float, **settings: Any) -> Variant:
    """A variant whose activation selects a number of latents: AuxK revives those that are not."""
    return Variant(
        sae, Objective(Term("mse", error), Term("aux", aux_k(sae.d_in // 2), aux)), **settings
    )


def level_blocks(widths: Sequence[int]) -> dict[str, range]:
    """What each of the nested levels of these widths adds to the one before, by name."""
    pairs = zip((0, *widths[:-1]), widths, strict=True)
    return {f"level_{i}": range(start, stop) for i, (start, stop) in enumerate(pairs)}


def _annealed(k: float, anneal: float) -> Number:
    """k, or a straight line from `anneal` times k down to k over the first 40 % of training."""
    return k if anneal == 1 else linear(anneal * k, k, until=0.4)


def standard(
    d_in: int, n_latents: int, *, l0: float, coefficient: Coefficient = 0.0, warmup: Warmup = 0.33
) -> Variant:
    """ReLU with an L1 penalty scaled by decoder norms and warmed up (Bricken et al. 2023; Conerly
    et al. 2024).

    L = ||x - x_hat||^2 + c * sum_j z_j ||W_dec_j||. `coefficient` > 0 fixes c and leaves the L0 to
    it.
    """
    sae = SAE(d_in, n_latents, ReLU())
    return _penalised(sae, l0, _sparse_loss(l1, l0, coefficient, warmup))


def standard_trimmed(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    excess: Annotated[float, Kind(1), "multiple of the L0 that it is trained at"] = 2.0,
    warmup: Warmup = 0.33,
) -> Variant:
    """`standard` trained at `excess` times the L0, then thresholded to it: a much stronger L1 row
    at equal sparsity.
    """
    excess = min(excess, 0.9 * n_latents / l0)
    start = max(1.0, START_L0 / excess)
    penalty = _sparse_loss(l1, excess * l0, 0.0, warmup, start=start)
    return _penalised(SAE(d_in, n_latents, Trimmed()), l0, penalty, calibrate=l0)


def p_anneal(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    coefficient: Coefficient = 0.0,
    warmup: Warmup = 0.33,
    p_end: Annotated[Share, "power of the codes at the end of training"] = 0.2,
) -> Variant:
    """ReLU with an L_p penalty, p falling linearly from 1 to `p_end` after the warm-up (Karvonen et
    al. 2024, 2408.00113).
    """
    penalty = p_norm(linear(1.0, p_end, since=warmup, until=0.9))
    sae = SAE(d_in, n_latents, ReLU())
    return _penalised(sae, l0, _sparse_loss(penalty, l0, coefficient, warmup))


def gated(
    d_in: int, n_latents: int, *, l0: float, coefficient: Coefficient = 0.0, warmup: Warmup = 0.33
) -> Variant:
    """Gate and magnitude apart, with an auxiliary reconstruction from the gate (Rajamanoharan et
    al. 2024, 2404.16014).

    L = ||x - x_hat||^2 + c * sum_j relu(gate_j) + ||x - x_hat_frozen(relu(gate))||^2.
    """
    return _penalised(
        SAE(d_in, n_latents, Gated(n_latents)),
        l0,
        _sparse_loss(gate_l1, l0, coefficient, warmup),
        Term("gate_mse", gate_mse),
        calibrate=None if coefficient > 0 else l0,
    )


def jump_relu(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    coefficient: Coefficient = 0.0,
    warmup: Warmup = 0.33,
    width: Annotated[Positive, "bandwidth of the pseudo-derivative, in units of x"] = 0.06,
) -> Variant:
    """One learned threshold per latent and an L0 penalty (Rajamanoharan et al. 2024, 2407.14435).

    L = ||x - x_hat||^2 + c * L0. `width` is the bandwidth of the pseudo-derivative; a typical code
    is about .2. The paper's .001 is for 4 billion tokens: in a short run hardly any pre-activation
    falls into so narrow a band.
    """
    sae = SAE(d_in, n_latents, JumpReLU(n_latents, width=width))
    penalty = _sparse_loss(jump_l0, l0, coefficient, warmup, initial=0.001)
    return _penalised(sae, l0, penalty, calibrate=None if coefficient > 0 else l0)


def topk(
    d_in: int, n_latents: int, *, l0: float, aux: Aux = 1 / 32, anneal: Anneal = 1.0
) -> Variant:
    """The k largest of each position, with AuxK for dead latents (Gao et al. 2024, 2406.04093)."""
    return selecting(SAE(d_in, n_latents, TopK(_annealed(l0, anneal))), mse, aux)


def batch_topk(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    aux: Aux = 1 / 32,
    anneal: Anneal = 1.0,
    refine: Refine = 0.0,
) -> Variant:
    """The k * N largest of a batch, a threshold at inference, AuxK (Bussmann et al. 2024,
    2412.06410).

    `refine` above 0: x is read a second time after a LISTA step of that size (`frontier`).
    """
    sae = SAE(d_in, n_latents, BatchTopK(_annealed(l0, anneal)), refine=refine)
    return selecting(sae, mse, aux, calibrate=l0)


def frozen(
    d_in: int, n_latents: int, *, l0: float, aux: Aux = 1 / 32, anneal: Anneal = 1.0
) -> Variant:
    """`batch_topk` with a random decoder that is never trained: the floor that a trained one must
    beat (2602.14111).
    """
    variant = batch_topk(d_in, n_latents, l0=l0, aux=aux, anneal=anneal)
    variant.sae.W_dec.requires_grad_(False)
    return variant


def matryoshka(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    aux: Aux = 1 / 32,
    anneal: Anneal = 1.0,
    levels: Annotated[Count, "nested levels, each twice as wide as the one before"] = 5,
    inner: Annotated[Times, "latents of the inner one of two levels; 0: `levels` says them"] = 0,
) -> Variant:
    """BatchTopK whose prefixes each reconstruct alone (Bussmann et al. 2025, 2503.17547).

    Level widths are n/2^(levels-1), ..., n/2, n; with `inner` above 0 there are two levels, the
    first `inner` latents and all.
    """
    if inner >= n_latents:
        raise ValueError(
            f"inner is {inner:g}; it is the width of the first level, below the {n_latents:,} "
            "latents (0: halves)"
        )
    widths = tuple(max(1, n_latents >> i) for i in reversed(range(round(levels))))
    if inner > 0:
        widths = (round(inner), n_latents)
    act = BatchTopK(_annealed(l0, anneal))
    sae = SAE(d_in, n_latents, act, blocks=level_blocks(widths))
    return selecting(sae, prefix_mse(widths), aux, calibrate=l0)
