"""Learning rates by search: every row on a stated grid, on development seeds of the family's head
world.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from saelab.evals import metric_of
from saelab.experiments.compare.judge import value_of
from saelab.experiments.listen import Listener
from saelab.experiments.plan import Plan
from saelab.experiments.run.execute import execute
from saelab.experiments.tables.rows import at_rate
from saelab.experiments.tables.table import WorldTable, plan_of
from saelab.store import CorruptFile, content_id, read_json, write_json

GRID = (1e-3, 2e-3, 3e-3, 5e-3, 1e-2)  # holds the rate that every world's table has
SEEDS = (0, 1, 2)
FILE = "learning_rates.json"


def choose_rates(table: WorldTable, out: Path, listener: Listener, jobs: int) -> dict[str, float]:
    """The rate of `GRID` with the best mean headline for every variant, written to
    `<out>-rates/learning_rates.json`.

    The search runs on seeds 0 to 2 of the family's head world at the standard length; twins and
    nulls inherit its rates. Raises `ValueError` when a variant has no rate with a defined headline.
    """
    head = replace(table, world=table.entry.head, seeds=SEEDS, l0s=(), changes={}, length=1.0)
    headline, folder = head.entry.headline[0], out.parent / f"{out.name}-rates"
    listener.note(
        f"learning rates: {', '.join(f'{lr:g}' for lr in GRID)} on seeds 0 to 2 of {head.world}, "
        f"by {headline}"
    )
    plan = _search(head)
    summary = execute(plan, folder, listener=listener, jobs=jobs)
    measured = {mean["variant"]: value_of(mean, headline) for mean in summary.means}
    sign = -1.0 if metric_of(headline, plan.evals).better == "lower" else 1.0
    chosen: dict[str, float] = {}
    for name in table.names:
        values = {lr: measured.get(f"{name}-lr{lr:g}") for lr in GRID}
        defined = {lr: sign * value for lr, value in values.items() if value is not None}
        if not defined:
            raise ValueError(
                f"no learning rate of {GRID} gave {name} a {headline} on {head.world}; see {folder}"
            )
        chosen[name] = max(defined, key=lambda lr: defined[lr])
    record = {
        "head": head.world,
        "headline": headline,
        "grid": GRID,
        "seeds": SEEDS,
        "chosen": chosen,
        "means": measured,
    }
    write_json(folder / FILE, record)
    rates = ", ".join(f"{name} {lr:g}" for name, lr in chosen.items())
    listener.note(f"chosen: {rates}; in {folder / FILE}")
    return chosen


def read_rates(path: Path, table: WorldTable) -> dict[str, float]:
    """Rates that `choose_rates` wrote. Raises `ValueError` when they are another family's or lack a
    variant.
    """
    record: Any = read_json(path)
    try:
        head = str(record["head"])
        chosen = {str(name): float(lr) for name, lr in record["chosen"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFile(
            f"{path} holds no learning rates ({error!r}); give a {FILE} that --tune wrote"
        ) from error
    if head != table.entry.head:
        raise ValueError(
            f"{path} was tuned on {head}; {table.world} takes its rates from {table.entry.head}"
        )
    missing = [name for name in table.names if name not in chosen]
    if missing:
        raise ValueError(
            f"{path} has no rate for {', '.join(missing)}; it has {', '.join(chosen)}; tune again "
            "with --tune"
        )
    return {name: chosen[name] for name in table.names}


def _search(head: WorldTable) -> Plan:
    """Every row at every rate, as one plan."""
    runs = tuple(at_rate(run, lr) for lr in GRID for run in plan_of(head).runs)
    return Plan(f"rates-{head.world}-{content_id([list(GRID), list(head.variants)], 6)}", runs)
