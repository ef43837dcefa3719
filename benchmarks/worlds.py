"""The tables of all worlds at the standard length, seeds 20 to 24: `python benchmarks/worlds.py
--out runs/worlds`.

Every world is one `saelab synth` command, timed; its summary is copied to `--results`
(docs/results) as `<world>.json`. What is done already is skipped, so the script can be stopped and
started again. `--table` prints the committed results as markdown.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from table import rows

from saelab.store import canonical_json, read_json, write_text
from saelab.synth.worlds import WORLDS

VARIANTS = "standard,standard_trimmed,gated,batch_topk,jump_relu,matryoshka,frontier,frozen"


def table(path: Path) -> str:
    """The means of a summary over its headline metrics, half-widths of the intervals in brackets."""
    summary = read_json(path)
    facts = summary["facts"]
    names = [
        "l0",
        "explained_variance",
        *(name for name in facts["headline"] if name != "explained_variance"),
    ]
    steps = WORLDS[facts["world"]].setup.steps * facts["length"]
    lines = [f"**`{facts['world']}`**, {steps:,.0f} steps"]
    failed = [check for check in facts["sanity"] if check["ok"] is False]
    lines += [
        f"Sanity row failed: {check['variant']} {check['metric']} {check['value']:.3f}."
        for check in failed
    ] + [""]
    return "\n".join([*lines, *rows(summary, names)])


def main() -> None:
    """Run the worlds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "worlds",
        nargs="*",
        default=[world for world in WORLDS if not world.startswith("synthsaebench")],
    )
    parser.add_argument("--out", type=Path, default=Path("runs/worlds"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--variants", default=VARIANTS)
    parser.add_argument("--seeds", default="5")
    parser.add_argument("--length", default="1")
    parser.add_argument(
        "--table", action="store_true", help="print what is in --results, run nothing"
    )
    given = parser.parse_args()
    if given.table:
        print("\n\n".join(table(given.results / f"{world}.json") for world in given.worlds))
        return
    for world in given.worlds:
        out = given.out / (world if given.length == "1" else f"{world}-x{given.length}")
        command = [
            "synth",
            world,
            "--variants",
            given.variants,
            "--seeds",
            given.seeds,
            "--first_seed",
            "20",
        ]
        command += ["--length", given.length, "--out", str(out)]
        started = time.monotonic()
        code = subprocess.run(
            [sys.executable, "-m", "saelab.cli", *command], stdout=subprocess.DEVNULL
        ).returncode
        print(f"{world}: exit {code}, {time.monotonic() - started:.0f} s", flush=True)
        if (out / "summary.json").exists():
            given.results.mkdir(parents=True, exist_ok=True)
            write_text(
                given.results / f"{out.name}.json",
                canonical_json(read_json(out / "summary.json")) + "\n",
            )


if __name__ == "__main__":
    main()
