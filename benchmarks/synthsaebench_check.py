"""Is our SynthSAEBench sae-lens's? Parts must be equal, statistics of samples must agree within
chance.

`python benchmarks/synthsaebench_check.py` installs sae-lens in an environment of its own (or give
`--sae_lens PYTHON`), builds the same model (seed 42) on both sides at 2k with all 100
orthogonalisation steps and at 16k with one (there sae-lens needs about 24 s a step), draws from
both, and prints every comparison. Exit code 1 where one fails.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from sae_lens_model import CHUNK, SEED, SIZES, Statistics, environment
from torch import Tensor

from saelab.store import read_tensors
from saelab.synth.features import FeatureProcess
from saelab.synth.features_build import synthsaebench

RUNS = {"2k": (100, 200_000), "16k": (1, 20_000)}  # orthogonalisation steps, samples
PART = 2e-4  # largest difference of a part's numbers (float32, another order of summation)
# largest distance of two unit vectors: Adam makes whole steps of gradients that are rounding errors
DIRECTION = 2e-3
CHANCE = 5.5  # largest difference of a statistic, in standard errors: thousands are compared
failed: list[str] = []


def say(what: str, value: float, limit: float) -> None:
    """Print a comparison, and remember it if it fails."""
    good = value <= limit
    if not good:
        failed.append(what)
    print(f"  {'ok  ' if good else 'FAIL'} {what}: {value:.2g} (at most {limit:g})", flush=True)


def check_parts(ours: FeatureProcess, theirs: dict[str, Tensor]) -> None:
    """Directions, bias, probabilities, copula, magnitudes, forest."""
    own = (1 + ours.slope.square().sum(1)).rsqrt()  # factor^2 + own^2 = 1
    made = {
        "bias": ours.bias,
        "probabilities": torch.special.ndtr(-(ours.offset * own).double()).float(),
        "factor": ours.slope * own.unsqueeze(1),
        "mean": ours.mean,
        "sd": ours.sd,
    }
    for name, value in made.items():
        say(f"largest difference of {name}", float((value - theirs[name]).abs().max()), PART)
    distance = (ours.features - theirs["features"]).norm(dim=1)
    say("largest distance of two directions", float(distance.max()), DIRECTION)
    parent = torch.full((len(ours.features),), -1)
    forest = ours.forest
    parent[forest.roots : forest.size] = torch.arange(forest.parents).repeat_interleave(
        forest.branching
    )
    say("features with another parent", float((parent != theirs["parent"]).sum()), 0)


def largest(a: Tensor, b: Tensor, error: Tensor) -> float:
    """Largest difference in standard errors."""
    return float(((a - b).abs() / error.clamp_min(1e-12)).max())


def check_samples(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Rates, magnitudes, pairs, L0, mean and covariance of x: theirs and ours."""
    n, m = float(a["n"]), float(b["n"])
    pooled = (a["active"] + b["active"]) / (n + m)
    frequent = pooled > 50 / min(n, m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    rates = largest((a["active"] / n)[frequent], (b["active"] / m)[frequent], error[frequent])
    say(f"rates of {int(frequent.sum())} features", rates, CHANCE)
    means = [s["code"] / s["active"].clamp_min(1) for s in (a, b)]
    variances = [
        s["square"] / s["active"].clamp_min(1) - mean.square()
        for s, mean in zip((a, b), means, strict=True)
    ]
    own = [
        v.clamp_min(1e-6) / s["active"].clamp_min(1) for v, s in zip(variances, (a, b), strict=True)
    ]
    error = (own[0] + own[1]).sqrt()
    say(
        "mean codes where active",
        largest(means[0][frequent], means[1][frequent], error[frequent]),
        CHANCE,
    )
    ratio = [float((s["square"].sum() / s["active"].sum()).sqrt()) for s in (a, b)]
    say("relative difference of root mean square codes", abs(ratio[0] / ratio[1] - 1), 0.005)
    joint = (a["pairs"] + b["pairs"]) / (n + m)
    error = (joint * (1 - joint) * (1 / n + 1 / m)).sqrt()
    often = joint > 25 / min(n, m)
    say(
        f"rates of {int(often.sum()) // 2} pairs",
        largest((a["pairs"] / n)[often], (b["pairs"] / m)[often], error[often]),
        CHANCE,
    )
    l0 = [float(s["l0"] / s["n"]) for s in (a, b)]
    spread = [float(s["l0_square"] / s["n"]) - mean**2 for s, mean in zip((a, b), l0, strict=True)]
    say(
        f"L0 {l0[0]:.3f} and {l0[1]:.3f}",
        abs(l0[0] - l0[1]) / (spread[0] / n + spread[1] / m) ** 0.5,
        4,
    )
    say(
        f"spread of L0 {spread[0] ** 0.5:.3f} and {spread[1] ** 0.5:.3f}",
        abs(spread[0] / spread[1] - 1),
        0.05,
    )
    energy = [float(s["xx"].trace() / s["n"]) for s in (a, b)]
    say(
        f"relative difference of E|x|^2 {energy[0]:.2f} and {energy[1]:.2f}",
        abs(energy[0] / energy[1] - 1),
        0.02,
    )
    means = [s["x"] / s["n"] for s in (a, b)]
    noise = (
        sum(
            float(e - mean.square().sum()) / s["n"]
            for e, mean, s in zip(energy, means, (a, b), strict=True)
        )
        ** 0.5
    )
    say(
        "difference of E x, by its root mean square under chance",
        float((means[0] - means[1]).norm() / noise),
        2,
    )


def check(size: str, python: Path) -> None:
    """One size."""
    steps, samples = RUNS[size]
    features, width, roots = SIZES[size]
    print(
        (
            f"{size}: {features} features, width {width}, {roots} roots, {steps} steps, {samples:,} "
            "samples a side"
        ),
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "theirs.safetensors"
        helper = Path(__file__).with_name("sae_lens_model.py")
        command = [
            python,
            helper,
            "dump",
            "--size",
            size,
            "--steps",
            str(steps),
            "--samples",
            str(samples),
            "--out",
            file,
        ]
        subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)
        theirs = read_tensors(file)
    ours = synthsaebench(0, features=features, d=width, roots=roots, apart_steps=steps, model=SEED)
    check_parts(ours, theirs)
    generator, statistics = torch.Generator().manual_seed(1), Statistics(features, width)
    violations = 0
    for _ in range(0, samples, CHUNK):
        sample = ours.draw(CHUNK, generator)
        statistics.add(sample.x, sample.codes)
        on = sample.codes > 0
        family = ours.forest.children(on.T)  # [parents, C, N]
        violations += int((family.sum(1) > on.T[: ours.forest.parents]).sum())
    say("children without a parent, or two of one parent", violations, 0)
    check_samples(
        {k[4:]: v for k, v in theirs.items() if k.startswith("sum.")}, statistics.tensors()
    )


def main() -> None:
    """Both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=list(RUNS))
    parser.add_argument("--sae_lens", type=Path, help="a Python with sae-lens 6.54")
    parser.add_argument(
        "--environment",
        type=Path,
        default=Path("runs/sae-lens-env"),
        help="where one is made otherwise",
    )
    given = parser.parse_args()
    python = environment(given.sae_lens, given.environment)
    for size in given.sizes:
        check(size, python)
    print(f"failed: {', '.join(failed)}" if failed else "all equal or within chance")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
