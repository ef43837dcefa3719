"""20-step float64 loss traces, one per variant. `python tests/golden/make.py NAME ...` writes some
anew; say why.

Without a name, all: also those that differ in the last bits alone, for machines differ there.
"""

import argparse
import json
from pathlib import Path

import torch

from saelab.runs import Optim, Run, Source, Spec
from saelab.store import write_json
from saelab.testing.fakes import SparseSource
from saelab.train import Training
from saelab.variants import VARIANTS

FOLDER = Path(__file__).parent
STEPS, BATCH = 20, 64


def trace(variant: str) -> dict[str, list[float]]:
    """Loss, explained variance and L0 of every step, and the sum of all weights' magnitudes at the
    end; in float64.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        run = Run(
            Spec(variant, 48, 4.0),
            Source(tokens=STEPS * BATCH, batch=BATCH),
            Optim(lr=3e-3, warmup=5),
        )
        training = Training([run], SparseSource(batch=BATCH))
        records = [record for progress in training for record in progress.records]
        weights = training.members[0].sae.state_dict().values()
    finally:
        torch.set_default_dtype(before)
    return {
        "loss": [record.loss for record in records],
        "explained_variance": [record.explained_variance for record in records],
        "l0": [record.l0 for record in records],
        "weights": [float(weight.abs().sum()) for weight in weights],
    }


def stored(variant: str) -> dict[str, list[float]]:
    """The trace that was committed."""
    return json.loads((FOLDER / f"{variant}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(VARIANTS))
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in VARIANTS]:
        parser.error(f"no variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    for name in names or VARIANTS:
        write_json(FOLDER / f"{name}.json", trace(name))
