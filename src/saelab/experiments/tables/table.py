"""A table on a synthetic world: variants x seeds x L0s, paired by seed, as a plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from saelab.experiments.plan import Contrast, Plan
from saelab.experiments.tables.rows import at_l0, parse_row
from saelab.experiments.tables.standard import COMPARATOR, OWN, SANITY
from saelab.runs import Optim, Run, Spec, WorldSource
from saelab.store import content_id
from saelab.synth.entry import Entry, Setup
from saelab.synth.worlds import configure, entry_of
from saelab.variants import settings_of

WARMUP = 100  # steps of learning-rate warm-up


@dataclass(frozen=True)
class WorldTable:
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
    def rows(self) -> tuple[Spec, ...]:
        """The rows, of default size. Raises `ValueError` for one that cannot be."""
        return tuple(map(parse_row, self.variants))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows)

    @property
    def entry(self) -> Entry:
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


def plan_of(table: WorldTable) -> Plan:
    """The runs of a table, the evaluations of its world, and every row against the comparator.
    Raises `ValueError`.
    """
    _check(table)
    setup, headline = table.setup, table.entry.headline
    comparator = table.names.index(COMPARATOR) if COMPARATOR in table.names else 0
    rates = {name: table.rates.get(name, setup.lr) for name in table.names}
    runs, contrasts = [], []
    for l0 in table.l0s or (setup.k,):
        specs = [_spec(row, l0, table) for row in table.rows]
        for spec, lr in zip(specs, rates.values(), strict=True):
            optim = Optim(lr=lr, warmup=WARMUP, decay=setup.decay, dead_after=setup.dead_after)
            runs += [Run(spec, table.source(seed), optim, seed) for seed in table.seeds]
        baseline = specs[comparator].name
        contrasts += [
            Contrast(metric, baseline, spec.name, where_defined=True)
            for spec in specs
            if spec.name != baseline
            for metric in headline
        ]
    # what `summary.json` says of the world and of how the table was made
    facts = {
        "world": table.world,
        "tests": table.entry.tests,
        "headline": list(headline),
        "settings": configure(table.world, table.changes)[0],
        "learning_rates": rates,
        "length": table.length,
    }
    sanity = SANITY.get(table.world, ())
    return Plan(table.name, tuple(runs), tuple(contrasts), facts=facts, sanity=sanity)


def _spec(row: Spec, l0: float, table: WorldTable) -> Spec:
    """The row at the world's size, with the world's numbers that the variant knows, where they
    differ from the variant's, beneath its own.
    """
    defaults, setup = settings_of(row.variant), table.setup
    numbers = {
        "anneal": setup.anneal,
        "levels": setup.levels,
        "inner": setup.inner,
        **OWN.get(table.world, {}).get(row.variant, {}),
    }
    settings = {
        name: value
        for name, value in numbers.items()
        if name in defaults and value != defaults[name]
    }
    spec = replace(row, n_latents=setup.n_latents, l0=l0, settings=settings | dict(row.settings))
    return at_l0(spec, l0) if len(table.l0s) > 1 else spec


def _check(table: WorldTable) -> None:
    setup = table.setup
    if not table.variants:
        raise ValueError("no variants are given; write for instance --variants standard,batch_topk")
    if not table.seeds:
        raise ValueError(
            "no seeds are given; give at least one (five for an interval that says something)"
        )
    if min(table.seeds) < 0:
        raise ValueError(f"a seed is {min(table.seeds)}; it must be 0 or more")
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
