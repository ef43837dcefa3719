"""A table on a synthetic world: variants x seeds x L0s, paired by seed, as a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saelab.experiments.compare.summary import Summary
from saelab.experiments.listen import Listener
from saelab.experiments.plan import Contrast, Plan
from saelab.experiments.run.execute import execute
from saelab.experiments.tables.rows import Row, parse_row
from saelab.experiments.tables.standard import COMPARATOR, OWN, SANITY
from saelab.runs import Optim, Run, Spec, WorldSource
from saelab.store import content_id
from saelab.synth.entry import Entry, Setup
from saelab.synth.worlds import configure, entry_of
from saelab.variants import settings_of

WARMUP = 100  # steps of learning-rate warm-up


@dataclass(frozen=True)
class Table:
    """What is run on a world. Every row of a seed has the same stream, width, steps and learning
    rate.
    """

    world: str
    variants: tuple[str, ...]  # rows, as `rows.parse_row` reads them
    seeds: tuple[int, ...]
    l0s: tuple[float, ...] = ()  # none: the world's k
    # of the world's parameters or its setup
    changes: Mapping[str, float] = field(default_factory=dict)
    length: float = 1.0  # times the standard number of steps
    # learning rate by row, where not the world's
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows. Raises `ValueError` for one that cannot be."""
        return tuple(map(parse_row, self.variants))

    @property
    def names(self) -> tuple[str, ...]:
        """What the rows are called."""
        return tuple(row.name for row in self.rows)

    @property
    def entry(self) -> Entry:
        """The world's entry in the table of worlds."""
        return entry_of(self.world)

    @property
    def setup(self) -> Setup:
        """How SAEs are trained, after `changes`."""
        return configure(self.world, self.changes)[1]

    @property
    def name(self) -> str:
        """The plan's name: what makes a table another one is the world, its numbers and the length,
        not its rows.
        """
        numbers = {
            "changes": {k: float(v) for k, v in self.changes.items()},
            "length": float(self.length),
        }
        plain = not self.changes and self.length == 1
        return f"synth-{self.world}" if plain else f"synth-{self.world}-{content_id(numbers, 6)}"

    def source(self, seed: int) -> WorldSource:
        """The stream of one seed."""
        settings, setup = configure(self.world, self.changes)
        return WorldSource(
            self.world, settings, round(setup.steps * self.length) * setup.batch, setup.batch, seed
        )


def plan_of(table: Table) -> Plan:
    """The runs of a table, the evaluations of its world, and every row against the comparator.
    Raises `ValueError`.
    """
    _check(table)
    setup, l0s = table.setup, table.l0s or (table.setup.k,)
    runs, contrasts = [], []
    baseline = COMPARATOR if COMPARATOR in table.names else table.names[0]
    for l0 in l0s:
        for row in table.rows:
            lr = table.rates.get(row.name, setup.lr)
            optim = Optim(lr=lr, warmup=WARMUP, decay=setup.decay, dead_after=setup.dead_after)
            spec = Spec(
                row.variant,
                setup.n_latents,
                l0,
                _settings(row, table),
                _label(row, l0, l0s),
                row.parts,
            )
            runs += [Run(spec, table.source(seed), optim, seed) for seed in table.seeds]
            if row.name != baseline:
                pair = tuple(
                    f"{name}-l0_{l0:g}" if len(l0s) > 1 else name for name in (baseline, row.name)
                )
                contrasts += [
                    Contrast(metric, *pair, where_defined=True) for metric in table.entry.headline
                ]
    return Plan(
        table.name,
        tuple(runs),
        tuple(contrasts),
        facts=_facts(table),
        sanity=SANITY.get(table.world, ()),
    )


def run_table(
    table: Table, out: Path, *, listener: Listener | None = None, jobs: int = 1
) -> Summary:
    """Train and evaluate what is not done yet; the summary has means, contrasts and sanity rows.

    Raises as `execute` does.
    """
    return execute(plan_of(table), out, listener=listener, jobs=jobs)


def _facts(table: Table) -> dict[str, Any]:
    """What `summary.json` says of the world and of how the table was made."""
    settings, setup = configure(table.world, table.changes)
    return {
        "world": table.world,
        "tests": table.entry.tests,
        "headline": list(table.entry.headline),
        "settings": settings,
        "learning_rates": {name: table.rates.get(name, setup.lr) for name in table.names},
        "length": table.length,
    }


def _settings(row: Row, table: Table) -> dict[str, float]:
    """The row's own numbers, and the world's that the variant knows, where they differ from the
    variant's.
    """
    known, setup = settings_of(row.variant), table.setup
    numbers = {
        "anneal": setup.anneal,
        "levels": setup.levels,
        "inner": setup.inner,
        **OWN.get(table.world, {}).get(row.variant, {}),
    }
    world = {
        name: value for name, value in numbers.items() if name in known and value != known[name]
    }
    return world | dict(row.settings)


def _label(row: Row, l0: float, l0s: Sequence[float]) -> str:
    """What tables call the row; nothing where that is the spec's own name."""
    if len(l0s) > 1:
        return f"{row.name}-l0_{l0:g}"
    return "" if row.name == "-".join((row.variant, *row.parts)) else row.name


def _check(table: Table) -> None:
    setup = table.setup
    if not table.variants:
        raise ValueError("no variants are given; write for instance --variants standard,batch_topk")
    if not table.seeds:
        raise ValueError(
            "seeds is 0: nothing would be trained; give at least 1 (5 for an interval that says "
            "something)"
        )
    if min(table.seeds) < 0:
        raise ValueError(f"the first seed is {min(table.seeds)}; it must be 0 or more")
    twice = sorted({name for name in table.names if table.names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two rows are called {twice[0]!r}; give one of them a name: "
            "NAME=VARIANT:SETTING=NUMBER"
        )
    for l0 in table.l0s or (setup.k,):
        if not 0 < l0 < setup.n_latents:
            raise ValueError(
                f"L0 is {l0:g}; it must be above 0 and below the width, {setup.n_latents} latents"
            )
    if not table.length > 0 or round(setup.steps * table.length) < 1:
        raise ValueError(
            f"length is {table.length:g}; it multiplies the {setup.steps:,} steps and must leave "
            "at least 1"
        )
