"""Short trainings on a stream of sparse features."""

from collections.abc import Mapping

from saelab.runs import Optim, Run, Source, Spec
from saelab.testing.variants import BATCH
from saelab.train import Training


def a_run(
    variant="topk",
    *,
    steps=30,
    seed=0,
    n_latents=64,
    settings: Mapping[str, float] | None = None,
    **optim,
) -> Run:
    spec = Spec(variant, n_latents, 4.0, settings or {})
    return Run(
        spec,
        Source(tokens=steps * BATCH, batch=BATCH),
        Optim(**({"lr": 3e-3, "warmup": 5} | optim)),
        seed,
    )


def finished(training: Training) -> Training:
    for _ in training:
        pass
    return training
