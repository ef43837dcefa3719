"""The tables of all worlds as markdown: `saelab run plans/worlds.py`, then `python
benchmarks/worlds.py`.

Copies what is in `runs/worlds` to `--results` (docs/results) as `<world>.json` and prints what is
there.
"""

import argparse
from pathlib import Path

from table import rows

from saelab.store import canonical_json, read_json, write_text
from saelab.synth.worlds import WORLDS


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
    """Copy new summaries, print all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="*", default=list(WORLDS))
    parser.add_argument("--out", type=Path, default=Path("runs/worlds"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    for world in given.worlds:
        made, kept = given.out / f"synth-{world}" / "summary.json", given.results / f"{world}.json"
        if made.exists():
            given.results.mkdir(parents=True, exist_ok=True)
            write_text(kept, canonical_json(read_json(made)) + "\n")
        if kept.exists():
            print(table(kept), end="\n\n")


if __name__ == "__main__":
    main()
