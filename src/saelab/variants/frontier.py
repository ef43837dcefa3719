"""The strongest known recipe on synthetic features, each part a number, so that an ablation is a
number.

Hypothesis: what raised the F1 of Matryoshka on SynthSAEBench-16k from .88 to .97 and more is
training, not another encoder. Data: shuffled activations. The loss, its parts and their sources:
docs/variants/frontier.md.
"""

from typing import Annotated

from saelab.numbers import Count, Kind, NonNegative, Share, Switch, Times
from saelab.sae.activations import BatchTopK
from saelab.sae.module import SAE
from saelab.terms.base import Event, Variant
from saelab.terms.events import evenly, resample
from saelab.terms.frequency import ByFrequency
from saelab.terms.reconstruct import prefix_mse
from saelab.terms.schedules import linear
from saelab.variants.baselines import Aux, Refine, level_blocks, selecting

PUBLISHED = (128, 32, 8, 4, 2, 1)  # the dictionary's width over that of each level
NARROWEST = 8  # latents below which a level is dropped
RESAMPLE_EVERY = 0.15  # of training


def level_widths(n_latents: int, depth: float = len(PUBLISHED)) -> tuple[int, ...]:
    """Widths of the nested levels: n/128, n/32, n/8, n/4, n/2, n, rounded down, without those below
    8 latents.

    Of what is left the `depth` widest; the whole dictionary always is one. 4,096 latents have
    levels of 32, 128, 512, 1,024, 2,048 and 4,096; 64 have 8, 16, 32 and 64; fewer than 16 have no
    inner level.
    """
    inner = [n_latents // share for share in PUBLISHED[:-1] if n_latents // share >= NARROWEST]
    return (*inner, n_latents)[-round(depth) :]


def frontier(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    depth: Annotated[Count, "levels at most, the whole dictionary included"] = 6,
    detach: Annotated[Switch, "the loss of a level trains its own latents only"] = 1,
    inner_weight: Annotated[NonNegative, "weight of every level but the last"] = 0.5,
    sorts: Annotated[Times, "sorts of the latents by how often they fire, evenly spaced"] = 20,
    k_start: Annotated[float, Kind(1), "multiple of k that training starts from"] = 2.4,
    k_until: Annotated[Share, "of training, after which k no longer falls"] = 1.0,
    refine: Refine = 0.3,
    tilt: Annotated[NonNegative, "of the mean over positions, over the mean square of x"] = 0.002,
    leave_one_out: Annotated[
        float, Kind(0, 0.9), "share of the active latents that inference drops"
    ] = 0.0,
    resamples: Annotated[
        float,
        Kind(0, int(1 / RESAMPLE_EVERY), whole=True),
        "resamplings of dead latents, one after every 15 % of training",
    ] = 3,
    aux: Aux = 1 / 32,
) -> Variant:
    """BatchTopK Matryoshka with every part of the recipe that is known to raise F1 on
    SynthSAEBench.

    With `leave_one_out` the SAE is trained at the L0 that leaves `l0` after that.

    Switched off one by one (1, 0, 1, 0, 1, any, 0, 0, 0, 0) it is `batch_topk`; with its levels,
    `matryoshka`.
    """
    widths = level_widths(n_latents, depth)
    k = min(l0 / (1 - leave_one_out), 0.9 * n_latents) if leave_one_out > 0 else l0
    act = BatchTopK(k if k_start == 1 else linear(k_start * k, k, until=k_until))
    blocks = level_blocks(widths)
    sae = SAE(d_in, n_latents, act, blocks=blocks, refine=refine, leave_one_out=leave_one_out)
    error = prefix_mse(widths, detach=detach, inner_weight=inner_weight, tilt=tilt)
    events = []
    if resamples >= 1:
        at = tuple(RESAMPLE_EVERY * (i + 1) for i in range(round(resamples)))
        events.append(Event(at, resample))
    if sorts >= 1:
        error = ByFrequency(error, n_latents)
        events.append(Event(evenly(round(sorts)), error.sort, moves=True))
    return selecting(sae, error, aux, events=tuple(events), calibrate=l0)
