"""The published SynthSAEBench-16k run: `python benchmarks/synthsaebench_16k.py --out
runs/synthsaebench-16k`.

Width 4,096, L0 25, 195,312 steps of 1,024 activations (200M), learning rate 3e-4 that falls to 0
over the last third; the features are those that sae-lens builds from seed 42, whatever the seed
here. One `saelab synth` command, which saves
checkpoints: stop the script at any time and start it again with the same arguments to go on. It
    prints where it stands against the published scores, of finished runs only. `--length 0.01` is a
    rehearsal of 2M activations; its scores say nothing about the full run.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from saelab.store import read_json
from saelab.synth.features_build import synthsaebench
from saelab.synth.worlds import WORLDS

WORLD, MODEL = "synthsaebench-16k", 42
VARIANTS = "standard,batch_topk,jump_relu,matryoshka,frontier"
FIRST_SEED = 20
SCORES = ("f1", "mcc", "uniqueness", "explained_variance")
PUBLISHED = {  # at L0 25, arXiv 2602.14687; frontier: what its recipe is reported to reach
    "standard": (0.556, 0.604, 0.898, 0.765),
    "batch_topk": (0.732, 0.757, 0.984, 0.792),
    "jump_relu": (0.732, 0.753, 0.989, 0.795),
    "matryoshka": (0.879, 0.793, 0.999, 0.779),
    "frontier": (0.97, None, None, None),
}


def standing(out: Path) -> None:
    """Every score of the summary beside the published one."""
    if not (out / "summary.json").exists():
        print("no summary yet: no run is finished")
        return
    means = {row["variant"]: row["metrics"] for row in read_json(out / "summary.json")["means"]}
    print(f"{'variant':12}" + "".join(f"{score:>28}" for score in ("l0", *SCORES)))
    for variant, metrics in means.items():
        known = dict(zip(SCORES, PUBLISHED.get(variant, ()), strict=False))
        cells = [f"{_number(metrics, 'l0')} (25)"]
        cells += [f"{_number(metrics, score)} ({known.get(score) or 'none'})" for score in SCORES]
        print(f"{variant:12}" + "".join(f"{cell:>28}" for cell in cells))
    print("in brackets: published")


def _number(metrics: dict, score: str) -> str:
    value = metrics.get(score, {}).get("value")
    return "undefined" if value is None else f"{value:.3f}"


def main() -> None:
    """Build the features once, then train and evaluate what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/synthsaebench-16k"))
    parser.add_argument("--variants", default=VARIANTS)
    parser.add_argument("--seeds", default=f"{FIRST_SEED}-{FIRST_SEED}", help="such as 20-22")
    parser.add_argument("--length", default="1")
    parser.add_argument("--jobs", default="1", help="processes, a seed each; about 2 GB each")
    parser.add_argument("--status", action="store_true", help="only print where it stands")
    given = parser.parse_args()
    if given.status:
        standing(given.out)
        return
    print("building the features, or reading them from the cache", flush=True)
    synthsaebench(FIRST_SEED, **WORLDS[WORLD].settings, model=MODEL)
    command = [
        "synth",
        WORLD,
        "--variants",
        given.variants,
        "--seeds",
        given.seeds,
    ]
    command += [
        "--set",
        f"model={MODEL}",
        "--length",
        given.length,
        "--jobs",
        given.jobs,
        "--out",
        str(given.out),
    ]
    code = subprocess.run([sys.executable, "-m", "saelab.cli", *command]).returncode
    standing(given.out)
    sys.exit(code)


if __name__ == "__main__":
    main()
