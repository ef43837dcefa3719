"""Reference rows on the embedded model, against which every research variant is compared.

    saelab run plans/lm_baselines.py            # the table: 7 rows x 2 L0s x 3 seeds, 2M activations each
    saelab run plans/lm_baselines_rates.py      # the search its learning rates come from (seed 0, L0 32)

Other plans find these runs by content id: `saelab run plans/<variant>.py --reuse runs/lm_baselines`.
"""

from saelab.experiments.plan import Contrast, Plan
from saelab.types import Optim, Run, Source, Spec

SOURCE = Source(model="pylm", corpus="stdlib", hook="middle", context=128, tokens=2_000_000)
N_LATENTS = 2_048
L0S, SEEDS = (32, 64), (0, 1, 2)
RATES: dict[str, float | None] = {  # None: the rule of train.optim.learning_rate, until the search has said otherwise
    "standard": None,
    "standard_trimmed": None,
    "batch_topk": None,
    "jump_relu": None,
    "matryoshka": None,
    "frontier": None,
    "frozen": None,
}


def spec(variant: str, l0: float) -> Spec:
    """A row of the table."""
    return Spec(variant, N_LATENTS, l0, label=f"{variant}-l0_{l0:g}")


def runs() -> tuple[Run, ...]:
    """The runs, which other plans may list as theirs."""
    return tuple(
        Run(spec(variant, l0), SOURCE, Optim(lr=lr), seed) for l0 in L0S for variant, lr in RATES.items() for seed in SEEDS
    )


def plan() -> Plan:
    """Every row against `batch_topk` at the same L0."""
    others = [variant for variant in RATES if variant != "batch_topk"]
    contrasts = tuple(
        Contrast(metric, f"batch_topk-l0_{l0:g}", f"{variant}-l0_{l0:g}")
        for l0 in L0S
        for variant in others
        for metric in ("explained_variance", "ce_loss_score")
    )
    return Plan("lm_baselines", runs(), contrasts)
