"""Every baseline at three sparsities on the embedded model: does each reach the L0 asked for, and
at what fidelity?

    saelab run plans/baselines.py

All variants on one stream of activations: some minutes on two cores. docs/lab-log.md has a table of
it.
"""

from saelab.experiments.plan import Plan
from saelab.runs import Run, Source, Spec
from saelab.variants import VARIANTS

SOURCE = Source(model="pylm", corpus="stdlib", hook="middle", tokens=450_000, eval_windows=128)


def plan() -> Plan:
    """One seed each; contrasts take more."""
    specs = [
        Spec(variant, n_latents=1_024, l0=l0, label=f"{variant}_{l0}")
        for l0 in (16, 32, 64)
        for variant in VARIANTS
    ]
    return Plan("baselines", tuple(Run(spec, SOURCE) for spec in specs))
