"""What sae-lens makes of a few drawn SAEs with known true features: the values that
`saelab.evals.truth.measure` must equal.

Run as `python benchmarks/sae_lens_truth.py` in an environment of its own, with torch 2.13, sae-lens
6.54 and no saelab. Writes `tests/reference/sae_lens_truth.safetensors` (what was fed) and `.json`
(what came back). `--out` writes elsewhere.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import torch
from sae_lens.evals import ExplainedVarianceCalculator
from sae_lens.synthetic.evals import (
    ClassificationMetricsCalculator,
    DeadLatentsCalculator,
    L0Calculator,
    ShrinkageCalculator,
    feature_uniqueness,
    mean_correlation_coefficient,
)
from safetensors.torch import save_file
from torch import Tensor

N, D, F = 200, 12, 16
MEAN = 0.3  # of every coordinate of x
BATCHES = (90, 64, 46)  # of different sizes: means over batches are not means over activations
REFERENCE = Path(__file__).parents[1] / "tests" / "reference"


def draw_world(generator: torch.Generator) -> dict[str, Tensor]:
    """Superposed features with different rates, one never active; activations with a mean, some of
    them zero.
    """
    features = torch.nn.functional.normalize(torch.randn(F, D, generator=generator), dim=1)
    rates = torch.linspace(0.02, 0.4, F)
    rates[3] = 0
    active = torch.rand(N, F, generator=generator) < rates
    codes = active * (0.5 + torch.rand(N, F, generator=generator))
    x = codes @ features + MEAN
    x[::50] = 0
    codes[::50] = 0
    return {"features": features, "codes": codes, "x": x}


def draw_sae(
    features: Tensor, x: Tensor, n_latents: int, threshold: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Noisy copies of the features, not all of unit norm, some with the wrong sign; the last four
    are odd.

    In turn: a duplicate, a duplicate that never fires, a zero direction that fires, a random
    direction that never fires.
    """
    which = torch.arange(n_latents) % F
    noise = torch.randn(n_latents, D, generator=generator) / D**0.5
    directions = (features[which] + 0.5 * noise) * (
        0.5 + torch.rand(n_latents, 1, generator=generator)
    )
    W_enc = (directions / directions.norm(dim=1, keepdim=True)).T.clone()
    b_enc = torch.full((n_latents,), -0.2)
    directions[1] = -directions[1]
    directions[-4] = directions[-3] = 1.5 * directions[0]
    W_enc[:, -4] = W_enc[:, 0]
    directions[-2] = 0
    b_enc[-3] = b_enc[-1] = -100
    pre = (x - MEAN) @ W_enc + b_enc
    z = pre.relu() * (pre > threshold)
    return {"directions": directions, "z": z, "x_hat": 0.5 * z @ directions + MEAN}


def measure(world: dict[str, Tensor], sae: dict[str, Tensor]) -> dict[str, float]:
    """The values, from sae-lens alone."""
    directions, features = sae["directions"], world["features"]
    l0, shrinkage, variance = L0Calculator(), ShrinkageCalculator(), ExplainedVarianceCalculator()
    dead, detection = (
        DeadLatentsCalculator(len(directions)),
        ClassificationMetricsCalculator(directions, features),
    )
    fed = (world["x"], world["codes"], sae["z"], sae["x_hat"])
    for x, codes, z, x_hat in zip(*(tensor.split(BATCHES) for tensor in fed), strict=True):
        l0.add_batch(z)
        dead.add_batch(z)
        shrinkage.add_batch(x_hat, x)
        variance.add_batch(x_hat, x)
        detection.add_batch(z, codes)
    detected = detection.compute()
    return {
        "mcc": mean_correlation_coefficient(directions, features),
        "precision": detected.precision,
        "recall": detected.recall,
        "f1": detected.f1_score,
        "uniqueness": feature_uniqueness(directions, features),
        "explained_variance": variance.compute(),
        "dead": dead.compute() / len(directions),  # theirs is a count
        "shrinkage": shrinkage.compute(),
        "l0": l0.compute(),
    }


def main() -> None:
    """Draw, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REFERENCE)
    out = parser.parse_args().out
    generator = torch.Generator().manual_seed(0)
    world = draw_world(generator)
    tensors, values = dict(world), {}
    for name, n_latents, threshold in (
        ("relu_wide", 24, 0.0),
        ("relu_narrow", 10, 0.0),
        ("threshold_wide", 24, 0.6),
        ("threshold_narrow", 10, 0.6),
    ):
        sae = draw_sae(world["features"], world["x"], n_latents, threshold, generator)
        values[name] = measure(world, sae)
        tensors |= {f"{name}.{key}": tensor.contiguous() for key, tensor in sae.items()}
    save_file(tensors, out / "sae_lens_truth.safetensors")
    golden = {"sae_lens": version("sae-lens"), "torch": torch.__version__, "values": values}
    (out / "sae_lens_truth.json").write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(golden, indent=2))


if __name__ == "__main__":
    main()
