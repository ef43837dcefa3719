"""The strongest known recipe on synthetic features, each part a number, so that an ablation is a
number.

Hypothesis: what raised the F1 of Matryoshka on SynthSAEBench-16k from .88 to .97 and more is
training, not another encoder. Data: shuffled activations. The loss, its parts and their sources:
docs/variants/frontier.md.
"""

from saelab.sae.activations import BatchTopK
from saelab.sae.module import SAE
from saelab.terms.base import Event, Objective, Term, Variant
from saelab.terms.events import resample
from saelab.terms.frequency import ByFrequency
from saelab.terms.reconstruct import aux_k, prefix_mse
from saelab.terms.schedules import linear

PUBLISHED = (128, 32, 8, 4, 2, 1)  # the dictionary's width over that of each level
NARROWEST = 8  # latents below which a level is dropped
RESAMPLE_EVERY = 0.15  # of training


def level_widths(n_latents: int, depth: float = len(PUBLISHED)) -> tuple[int, ...]:
    """Widths of the nested levels: n/128, n/32, n/8, n/4, n/2, n, rounded down, without those below
    8 latents.

    Of what is left the `depth` widest; the whole dictionary always is one. 4,096 latents have
    levels of 32, 128, 512, 1,024, 2,048 and 4,096; 64 have 8, 16, 32 and 64; fewer than 16 have no
    inner level. Raises `ValueError` for a depth below 1.
    """
    if depth < 1:
        raise ValueError(
            f"depth is {depth:g}; it is the number of levels and must be at least 1, the whole "
            "dictionary"
        )
    inner = [n_latents // share for share in PUBLISHED[:-1] if n_latents // share >= NARROWEST]
    return (*inner, n_latents)[-round(depth) :]


def frontier(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    depth: float = len(PUBLISHED),
    detach: float = 1,
    inner_weight: float = 0.5,
    sorts: float = 20,
    k_start: float = 2.4,
    k_until: float = 1.0,
    refine: float = 0.3,
    tilt: float = 0.002,
    leave_one_out: float = 0.0,
    resamples: float = 3,
    aux: float = 1 / 32,
) -> Variant:
    """BatchTopK Matryoshka with every part of the recipe that is known to raise F1 on
    SynthSAEBench.

    `depth`: levels at most (`level_widths`); 1: none. `detach` 1: the loss of a level trains its
    own latents only. `inner_weight`: of every level but the last. `sorts`: how often, evenly
    spaced, latents are sorted by how often they fire. `k_start`: k falls in a straight line from
    this multiple of its end until `k_until` of training. `refine`: size of the LISTA step. `tilt`:
    over the mean squared norm of the activations. `leave_one_out`: share of active latents dropped
    at inference; the SAE is trained at the L0 that leaves `l0` after that. `resamples`: after every
    15 % of training, this many times.

    Switched off one by one (1, 0, 1, 0, 1, any, 0, 0, 0, 0) it is `batch_topk`; with its levels,
    `matryoshka`. Raises `ValueError` for numbers out of range.
    """
    _check(
        detach=detach,
        inner_weight=inner_weight,
        sorts=sorts,
        k_start=k_start,
        tilt=tilt,
        leave_one_out=leave_one_out,
        resamples=resamples,
    )
    widths = level_widths(n_latents, depth)
    blocks = {
        f"level_{i}": range(a, b)
        for i, (a, b) in enumerate(zip((0, *widths[:-1]), widths, strict=True))
    }
    k = min(l0 / (1 - leave_one_out), 0.9 * n_latents) if leave_one_out > 0 else l0
    act = BatchTopK(k if k_start == 1 else linear(k_start * k, k, until=k_until))
    sae = SAE(d_in, n_latents, act, blocks=blocks, refine=refine, leave_one_out=leave_one_out)
    error = prefix_mse(widths, detach=detach, inner_weight=inner_weight, tilt=tilt)
    events = []
    if resamples >= 1:
        events.append(
            Event(tuple(RESAMPLE_EVERY * (i + 1) for i in range(round(resamples))), resample)
        )
    if sorts >= 1:
        error = ByFrequency(error, n_latents)
        events.append(
            Event(tuple((i + 1) / (round(sorts) + 1) for i in range(round(sorts))), error.sort)
        )
    return Variant(
        sae,
        Objective(Term("mse", error), Term("aux", aux_k(d_in // 2), aux)),
        events=tuple(events),
        calibrate=l0,
    )


def _check(**numbers: float) -> None:
    """Raises `ValueError` for a number of `frontier` that is out of range."""
    least = {
        "inner_weight": 0,
        "sorts": 0,
        "k_start": 1,
        "tilt": 0,
        "leave_one_out": 0,
        "resamples": 0,
    }
    for name, low in least.items():
        if not numbers[name] >= low:
            raise ValueError(f"{name} is {numbers[name]:g}; it must be at least {low}")
    if numbers["detach"] not in (0, 1):
        raise ValueError(
            f"detach is {numbers['detach']:g}; it is 1 (levels train their own latents only) or 0 "
            "(all before too)"
        )
    if numbers["leave_one_out"] > 0.9:
        raise ValueError(
            f"leave_one_out is {numbers['leave_one_out']:g}; it is the share of active latents "
            "dropped, at most .9"
        )
    if numbers["resamples"] > 1 / RESAMPLE_EVERY:
        raise ValueError(
            f"resamples is {numbers['resamples']:g}; one is due after every 15 % of training, so "
            "at most 6"
        )
