"""Reference rows on the embedded model, against which every research variant is compared.

They are trained once by `plans/lm_baselines.py`; other plans list the same runs and take them over
by content id (`saelab run plans/<variant>.py --reuse runs/lm_baselines`).
"""

from collections.abc import Sequence
from dataclasses import replace

from saelab.experiments.tables.rows import at_l0, parse_row
from saelab.runs import Optim, Run, Source, Spec

SOURCE = Source(model="pylm", corpus="stdlib", hook="middle", context=128, tokens=2_000_000)
N_LATENTS = 2_048
L0S: tuple[float, ...] = (32, 64)
SEEDS = (0, 1, 2)
GRID = (1e-3, 2e-3, 4e-3, 8e-3)  # rates that `plans/lm_baselines_rates.py` tries on seed 0 at L0 32
EDGE = ("standard", "standard_trimmed", "jump_relu")
# and one more where the last of them won
WIDER: dict[str, tuple[float, ...]] = dict.fromkeys(EDGE, (1.6e-2,))
RATES: dict[str, float] = {  # the highest held-out explained variance of that search
    "standard": 8e-3,
    "standard_trimmed": 8e-3,
    "batch_topk": 4e-3,
    "jump_relu": 8e-3,
    "matryoshka": 4e-3,
    "frontier": 2e-3,
    "frozen": 2e-3,
}

CAUSAL = (  # the causal rows
    "refined=batch_topk:refine=.15",
    "causal",
    "rotated=causal:rotate=1",
    "metric=causal:refine=0",
    "rotated_metric=causal:refine=0:rotate=1",
    "kl_finetune_25=kl_finetune_25:weight=1:restart=.3",
    "end_to_end=end_to_end:weight=.25:kl_share=.25",
)


def row(text: str, l0: float = 32) -> Spec:
    """The row that `text` describes (`tables.rows.parse_row`), at the size of these tables."""
    return replace(parse_row(text), n_latents=N_LATENTS, l0=l0)


def reference_runs(variants: Sequence[str] = tuple(RATES)) -> tuple[Run, ...]:
    """The runs of these rows at both L0s, three seeds each, called `<variant>-l0_<L0>`."""
    return tuple(
        Run(at_l0(row(variant), l0), SOURCE, Optim(lr=RATES[variant]), seed)
        for l0 in L0S
        for variant in variants
        for seed in SEEDS
    )
