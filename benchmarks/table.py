"""A committed summary as a markdown table: `python benchmarks/table.py
docs/results/lm_baselines.json l0 explained_variance`.

Means over seeds, half-widths of their 95 % intervals in brackets. `--against ROW` adds paired
differences from that row, where the plan asked for the contrast.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from saelab.store import read_json


def rows(summary: dict, names: Sequence[str]) -> list[str]:
    """The lines of the table: a row per variant, a column per metric."""
    lines = [f"| | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for row in summary["means"]:
        lines.append(
            f"| `{row['variant']}` | "
            f"{' | '.join(cell(row['metrics'].get(name, {})) for name in names)} |"
        )
    return lines


def differences(summary: dict, against: str) -> list[str]:
    """The lines of the contrasts with a row: metric, difference, interval, verdict."""
    lines = ["| row | metric | difference | verdict |", "|---|---|---|---|"]
    for found in summary["contrasts"]:
        if found["baseline"] == against:
            lines.append(
                f"| `{found['treatment']}` | `{found['metric']}` | {_signed(found)} | "
                f"{found['verdict']} |"
            )
    return lines


def cell(entry: dict) -> str:
    """One mean."""
    if entry.get("value") is None:
        return "-"
    half = "" if entry["low"] is None else f" ({(entry['high'] - entry['low']) / 2:.3f})"
    return f"{entry['value']:.3f}{half}"


def _signed(found: dict) -> str:
    if found["value"] is None:
        return "-"
    interval = "" if found["low"] is None else f" [{found['low']:+.4f}, {found['high']:+.4f}]"
    return f"{found['value']:+.4f}{interval}"


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summary", type=Path)
    parser.add_argument(
        "metrics",
        nargs="*",
        default=["l0", "explained_variance", "ce_loss_score", "kl_div_with_sae"],
    )
    parser.add_argument("--against")
    given = parser.parse_args()
    summary = read_json(given.summary)
    print("\n".join(rows(summary, given.metrics)))
    if given.against:
        print("\n" + "\n".join(differences(summary, given.against)))


if __name__ == "__main__":
    main()
