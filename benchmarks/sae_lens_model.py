"""SynthSAEBench as sae-lens makes it, for the scripts that compare with it; run in an environment
of its own, without saelab.

`environment` (called in saelab's environment) gives a Python that has sae-lens 6.54; started with
it, this file builds the model and obeys: `python sae_lens_model.py dump ...` writes its parts and
statistics of its samples, `... serve` times it.
"""

import argparse
import json
import subprocess
import sys
import time
import venv
from pathlib import Path

import torch
from torch import Tensor

PINNED = "sae-lens==6.54.12"
SIZES = {"16k": (16_384, 768, 128), "2k": (2_048, 256, 16)}  # features, width, roots
SEED = 42
CHUNK = 1_024


def environment(python: Path | None, folder: Path) -> Path:
    """The Python given, or one in `folder`, made and filled on the first call."""
    python = python or folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run(
            [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                PINNED,
                f"torch=={torch.__version__.split('+')[0]}",
            ],
            check=True,
        )
    return python


def build(size: str, steps: int):
    """The model of the published configuration at a size, with `steps` orthogonalisation steps."""
    from sae_lens.synthetic import (
        FoldedNormalMagnitudeConfig,
        HierarchyConfig,
        LinearMagnitudeConfig,
        LowRankCorrelationConfig,
        OrthogonalizationConfig,
        SyntheticModel,
        SyntheticModelConfig,
        ZipfianFiringProbabilityConfig,
    )

    features, width, roots = SIZES[size]
    hierarchy = HierarchyConfig(
        total_root_nodes=roots,
        branching_factor=4,
        max_depth=3,
        mutually_exclusive_portion=1.0,
        compensate_probabilities=True,
        scale_children_by_parent=True,
    )
    config = SyntheticModelConfig(
        num_features=features,
        hidden_dim=width,
        firing_probability=ZipfianFiringProbabilityConfig(
            exponent=0.5, max_prob=0.4, min_prob=5e-4
        ),
        hierarchy=hierarchy,
        orthogonalization=OrthogonalizationConfig(num_steps=steps, lr=3e-4) if steps else None,
        correlation=LowRankCorrelationConfig(rank=25, correlation_scale=0.1),
        std_firing_magnitudes=FoldedNormalMagnitudeConfig(mean=0.5, std=0.5),
        mean_firing_magnitudes=LinearMagnitudeConfig(start=5.0, end=4.0),
        bias=0.5,
        seed=SEED,
    )
    return SyntheticModel(config)


def parts(model) -> dict[str, Tensor]:
    """What the model is made of."""
    drawn, family = model.activation_generator, {}
    for root in model.hierarchy.roots:
        _visit(root, family)
    parent = torch.full((drawn.num_features,), -1)
    parent[list(family)] = torch.tensor(list(family.values()))
    return {
        "features": model.feature_dict.feature_vectors.detach(),
        "bias": model.feature_dict.bias.detach(),
        "probabilities": drawn.firing_probabilities,
        "factor": model.correlation_matrix.correlation_factor,
        "mean": drawn.mean_firing_magnitudes,
        "sd": drawn.std_firing_magnitudes,
        "parent": parent,
    }


def _visit(node, family: dict[int, int]) -> None:
    for child in node.children:
        family[child.feature_index] = node.feature_index
        _visit(child, family)


class Statistics:
    """Sums over samples from which both sides are compared: rates, magnitudes, pairs of the first
    features, x.
    """

    PAIRS = 128

    def __init__(self, n_features: int, width: int):
        self.n = 0
        self.active, self.code, self.square = torch.zeros(3, n_features, dtype=torch.double)
        self.pairs = torch.zeros(self.PAIRS, self.PAIRS, dtype=torch.double)
        self.l0, self.l0_square = torch.zeros(2, dtype=torch.double)
        self.x, self.xx = (
            torch.zeros(width, dtype=torch.double),
            torch.zeros(width, width, dtype=torch.double),
        )

    def add(self, x: Tensor, codes: Tensor) -> None:
        """Activations `[N, D]` and their codes `[N, F]`."""
        on = codes > 0
        self.n += len(x)
        self.active += on.sum(0)
        self.code += codes.sum(0)
        self.square += codes.square().sum(0)
        first = on[:, : self.PAIRS].float()
        self.pairs += first.T @ first
        count = on.sum(1).double()
        self.l0 += count.sum()
        self.l0_square += count.square().sum()
        self.x += x.sum(0)
        self.xx += x.T @ x

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        sums = {name: value for name, value in vars(self).items() if name != "n"}
        return {"n": torch.tensor(self.n), **sums}


def dump(size: str, steps: int, samples: int, out: Path) -> None:
    """Write parts and statistics."""
    from safetensors.torch import save_file

    started = time.perf_counter()
    model = build(size, steps)
    seconds = time.perf_counter() - started
    torch.manual_seed(0)
    made = parts(model)
    statistics = Statistics(*made["features"].shape)
    for _ in range(0, samples, CHUNK):
        statistics.add(*model.sample_with_features(CHUNK))
    tensors = {**made, **{f"sum.{name}": value for name, value in statistics.tensors().items()}}
    save_file(
        {name: value.detach().contiguous() for name, value in tensors.items()},
        out,
        {"build_seconds": f"{seconds:.1f}"},
    )


def serve(size: str, batch: int) -> None:
    """For every number read from standard input, sample that many batches and answer with the
    seconds taken.
    """
    torch.set_num_threads(1)
    model = build(size, 0)  # directions do not matter for speed
    model.sample(batch)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            model.sample(batch)
        print(json.dumps(time.perf_counter() - started), flush=True)


def main() -> None:
    """Obey the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=("dump", "serve"))
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=1_024)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.do == "dump":
        dump(given.size, given.steps, given.samples, given.out)
    else:
        serve(given.size, given.batch)


if __name__ == "__main__":
    main()
